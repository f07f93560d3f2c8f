"""The command line `vcinr`."""
