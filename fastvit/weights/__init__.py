"""Weights: our files, the official and timm layouts, the Hugging Face Hub, and what is known of each."""
