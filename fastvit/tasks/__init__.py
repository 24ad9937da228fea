"""The tasks, one package each: data, model, loss, metrics, decoding and drawing."""
