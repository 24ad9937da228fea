"""Data for all tasks: image files, datasets, samplers, transforms and the embedded sample."""
