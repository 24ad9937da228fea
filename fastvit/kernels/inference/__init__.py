"""A fused network faster than PyTorch runs it: see `fastvit.accelerate`."""
