"""What changes weights in full precision and leaves every output as it was."""
