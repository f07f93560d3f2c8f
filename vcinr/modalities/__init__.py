"""Kinds of signal, one a file."""
