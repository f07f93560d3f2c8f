"""What is compressed: signals on grids, modalities, patches, datasets through tensorflow-datasets."""
