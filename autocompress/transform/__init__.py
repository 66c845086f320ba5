"""Prune, drop and quantise: a candidate and a model give a new model."""
