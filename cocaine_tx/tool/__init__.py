"""cocaine-tool: a file for each noun."""
