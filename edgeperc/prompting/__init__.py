"""The parts of a session with a promptable network: prompts, networks, memory, masks."""
