"""What makes a CPU fast: `products.fast_products` for inference, `training.fast_training` for training."""
