"""Labelled data of every kind, made training examples."""
