"""What several tasks share: reading images, transforms from one description, datasets, the embedded sample."""
