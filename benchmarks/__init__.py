"""Speed, memory and rate overhead of vcinr, as ratios: `python -m benchmarks`."""
