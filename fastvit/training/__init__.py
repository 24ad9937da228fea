"""Training: recipes, and their execution with Lightning's Trainer."""
