"""Training: a codec's stages become compiled steps, spread over devices, checkpointed, resumed and rolled back."""
