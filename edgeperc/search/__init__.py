"""Where to look next: probability map, schedulers, and the loop through the mirror."""
