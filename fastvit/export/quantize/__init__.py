"""int8 after training: which images to calibrate on, which layers stay in float, and a quantizer a format."""
