"""Post-training quantization to int8: calibration images, sensitive layers, and a quantizer per format."""
