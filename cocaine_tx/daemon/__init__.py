"""Each daemon, furnished out of rooms."""
