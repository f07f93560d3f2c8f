"""Trained fields taken apart, one question a file; `python -m experiments.dissect`."""
