"""Training: losses, batches, the trainer and its stages."""
