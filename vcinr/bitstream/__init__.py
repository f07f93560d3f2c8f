"""Files: the container, the payload of coded symbols, fingerprints of operating points."""
