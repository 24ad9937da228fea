"""The FastViT network; its modules correspond to the parts of figure 2 of the paper (arXiv 2303.14189)."""
