"""cocaine_tx: a platform that runs people's applications."""

__version__ = "0.1.0"
