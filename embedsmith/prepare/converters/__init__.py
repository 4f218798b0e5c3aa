"""Labelled data of each kind to training examples."""
