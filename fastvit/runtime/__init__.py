"""Using a trained model or an exported artifact: one call for both."""
