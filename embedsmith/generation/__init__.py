"""What a chat model is asked to write, and what of its answers can be used."""
