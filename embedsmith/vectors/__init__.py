"""Texts to vectors, on disk."""
