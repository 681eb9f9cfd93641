"""The loop through the mirror: its process, its devices, and what leads into and out of it."""
