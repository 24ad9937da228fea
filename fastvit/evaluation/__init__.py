"""Evaluation of models on data, with reports."""
