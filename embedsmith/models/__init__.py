"""The embedding model: naming one, building one from a decoder, probing its attention, loading and saving it."""

import os

# oneDNN keeps the code of a thousand products, one for each shape of a batch on a CPU: gigabytes after a hundred steps of
# texts of all lengths. It is read when the first product is made.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
