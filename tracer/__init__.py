"""Kernel, clock, files, terminal: everything that the other floors must not touch."""
