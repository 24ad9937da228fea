"""`fastvit bench`: time models, kernels on a GPU, and steps of training."""
