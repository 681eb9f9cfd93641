"""Edge perception for vision, segmentation and event cameras."""
