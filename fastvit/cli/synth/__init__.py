"""`fastvit synth`: create synthetic datasets."""
