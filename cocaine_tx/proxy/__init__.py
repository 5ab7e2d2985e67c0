"""HTTP in, channels out."""
