"""Exact and approximate top-k over stored vectors; knows no model."""
