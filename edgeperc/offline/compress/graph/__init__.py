"""Changes of an exported graph that keep what it computes; one idea in each module."""
