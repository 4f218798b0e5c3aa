"""What a ranking is worth, and whether the difference between two is real."""
