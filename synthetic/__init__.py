"""Phantoms, photographs and samples made from public parameters; never fitted to anybody's data."""
