"""From a detector's output to boxes: decoders, suppression, tiles and their merging."""
