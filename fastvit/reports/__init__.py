"""Report pages, plots, and labels of metrics, which all commands share."""
