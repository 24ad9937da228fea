"""`fastvit bench`: measure the latency of models, of kernels on a GPU, and of training steps."""
