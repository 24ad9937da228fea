"""Files in a run's directory: their names, history, settings, and the data of the run."""
