"""From latents to bytes: quantisers, entropy models, integer tables, the range coder."""
