"""The embedding model: naming one, building one from a decoder, probing its attention, loading and saving it."""

import os

# On a CPU oneDNN keeps the code of a thousand products, each for one shape of its factors: gigabytes after a hundred
# steps of texts of all lengths. It reads this when it makes the first one.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
