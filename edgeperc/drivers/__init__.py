"""One sensor a file; each vendor library is imported inside its own driver."""
