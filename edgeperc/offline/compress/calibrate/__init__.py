"""What networks are looked at with before they are quantized."""
