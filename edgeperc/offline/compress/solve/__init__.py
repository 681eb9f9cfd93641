"""What moves quantized values until the network errs less."""
