"""`fastvit synth`: make synthetic datasets."""
