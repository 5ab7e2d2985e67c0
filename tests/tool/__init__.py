"""cocaine-tool, seen from the terminal."""
