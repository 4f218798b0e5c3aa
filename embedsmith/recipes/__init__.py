"""Recipes: a run from data to scores, what it needs, and grids of them."""
