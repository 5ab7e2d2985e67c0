"""How a worker is started and stopped."""
