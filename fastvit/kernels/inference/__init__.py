"""Kernels that run a fused network faster than PyTorch; see `fastvit.accelerate`."""
