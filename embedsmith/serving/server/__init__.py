"""A trained model behind HTTP: OpenAI's protocol, reranking and search, with the texts read as in training."""
