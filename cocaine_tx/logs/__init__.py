"""The logging service."""
