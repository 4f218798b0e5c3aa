"""Top-k passages by inner product; knows vectors, no model."""
