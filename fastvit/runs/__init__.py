"""What a run's directory contains: the names of its files, its history, its settings, the data it was made with."""
