"""The tasks, a package each: data, model, loss, metrics, decoding and drawing."""
