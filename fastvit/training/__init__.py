"""Recipes and the loop that runs them, on Lightning's Trainer."""
