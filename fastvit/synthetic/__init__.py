"""Synthetic images with exact annotations."""
