"""Exported artifacts and the runtimes that read them."""
