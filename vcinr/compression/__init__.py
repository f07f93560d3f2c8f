"""From the latent of a patch to symbols: the interface, uniform quantisation, the variational bottleneck."""
