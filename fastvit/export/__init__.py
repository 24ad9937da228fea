"""Export to other runtimes; every artifact is verified against the trained model."""
