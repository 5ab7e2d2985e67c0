"""Who serves what, and where."""
