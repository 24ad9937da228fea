"""Kernels in Triton. Importing one needs Triton, which is installed with PyTorch on Linux."""
