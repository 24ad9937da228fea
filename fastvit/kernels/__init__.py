"""Kernels of our own and their dispatch; the model never imports them."""
