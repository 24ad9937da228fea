"""Artifacts for devices, each proved equal to the model it was made from."""
