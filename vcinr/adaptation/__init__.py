"""From a signal to its latent: the one `fit`, learned step sizes, chunked objectives."""
