"""Runnable recipes: prepare data, train, evaluate."""
