"""Ablations: a recipe with every combination of some settings."""
