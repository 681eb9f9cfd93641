"""Trained networks to 8 bits and fewer: sites, quantizers, ordered passes, and a ledger."""
