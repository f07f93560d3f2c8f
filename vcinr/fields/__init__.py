"""Fields f(x; θ, φ) and the modulations that make one field serve many signals."""
