"""Kernels in Triton. Importing one needs Triton, which PyTorch brings along on Linux."""
