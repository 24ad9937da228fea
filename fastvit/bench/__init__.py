"""How fast: interleaved, warmed, medians."""
