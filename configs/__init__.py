"""Experiment configs, one file per paper or codec: `--config=configs/NAME.py:VARIANT`."""
