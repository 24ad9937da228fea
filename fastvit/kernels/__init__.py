"""Kernels for training and inference, and their dispatch; the model does not import them."""
