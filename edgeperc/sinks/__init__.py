"""One way out a file."""
