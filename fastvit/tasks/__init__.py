"""One room a task: its data, its module with loss and metrics, its drawing."""
