"""The ways to spread load over nodes."""
