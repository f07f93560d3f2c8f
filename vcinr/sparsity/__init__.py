"""L0 gates, pruning, and the patterns of entries that a file pays for."""
