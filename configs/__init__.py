"""Experiment configs, one file a codec: `--config=configs/NAME.py:VARIANT`."""
