"""Symbols given what is already decoded: coding order, priors, synthesis, rounding, refinement, and their training."""
