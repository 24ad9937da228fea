"""Weights: files of fastvit, the official and timm layouts, the Hugging Face Hub, and the list of released weights."""
