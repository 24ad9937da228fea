"""From images to predictions: `Predictor`, what runs it, records and pictures of predictions."""
