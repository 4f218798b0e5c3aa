"""Files in, records out: collections, training examples, code search."""
