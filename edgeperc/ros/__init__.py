"""ROS 2 messages without ROS: what edgeperc says, as standard types, and their bytes (CDR)."""
