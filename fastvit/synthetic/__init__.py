"""Synthetic images with exact annotations, for detection and segmentation."""
