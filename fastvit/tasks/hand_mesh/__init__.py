"""3D hand mesh regression."""
