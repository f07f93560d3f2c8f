"""How the latent of a patch becomes symbols: the interface, uniform quantisation, the variational bottleneck."""
