"""Variational INRs: Gaussian posteriors, prior learning, blocks, relative entropy coding."""
