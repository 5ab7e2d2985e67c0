"""``python -m cocaine_tx.tool``."""

from .main import main

if __name__ == "__main__":
    main()
