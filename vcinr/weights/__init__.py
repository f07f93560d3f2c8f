"""Whole networks into files: quantisation grids, AdaRound, retraining, coding."""
