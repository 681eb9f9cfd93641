"""The daemon's processes: one for each sensor and each pipeline, watched and started anew."""
