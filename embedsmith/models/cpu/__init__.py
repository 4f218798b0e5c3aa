"""What makes a CPU fast: `matmul.fast_matmul` for inference, `training.fast_training` for training."""
