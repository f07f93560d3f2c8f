"""Data sets by name, their builders, and sources of training examples."""
