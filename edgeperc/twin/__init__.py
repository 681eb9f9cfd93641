"""The digital twin: a procedural street, a camera that walks through it, and its event sensor."""
