"""The embedding model: naming one, building one from a decoder, probing its attention, loading and saving it."""
