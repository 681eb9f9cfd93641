"""Galvano mirrors: three that are spoken to over a serial port, and the twin's own."""
