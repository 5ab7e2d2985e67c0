"""Apps and their workers."""
