#!/bin/sh
# The original framework lives in an environment of its own.
exec "$ORIGINAL_PYTHON" main.py "$@"
