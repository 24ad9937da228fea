"""The network; its modules read like the figure of the paper (arXiv 2303.14189, figure 2)."""
