"""Measuring models on data, and showing what came out."""
