"""How a classifier's accuracy holds on images that are corrupted, drawn, or chosen to be hard."""
