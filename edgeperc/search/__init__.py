"""Where to look next: the map of what has not been seen, the tracks, and those who decide."""
