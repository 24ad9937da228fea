"""Pages, plots and the labels of metrics: what every command that reports something shares."""
