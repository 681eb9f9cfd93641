"""Recordings: all that sensors say and pipelines find, in MCAP files that ROS 2 tools open."""
