"""GPU kernels and their dispatch. The model never imports this; nothing here is needed on a CPU."""
