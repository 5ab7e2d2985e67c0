# Everything a visitor or a developer does here. Each target does its own set-up in .venv; nothing needs root.
#
#   make run    the whole platform on loopback, with the app `hello` in it
#   make test   all tests; TESTS="tests.wire tests.rpc" for some of them
#   make bench  the benchmark table
#   make lint   ruff and mypy
#   make docs   the manual, into docs/_build
#   make clean  remove what the targets above made, but not DATA_DIR

PYTHON ?= python3
HTTP_PORT ?= 8080
LOCATOR_PORT ?= 10053
DATA_DIR ?= ./var
TESTS ?=

VENV := .venv
BIN := $(VENV)/bin
ORIGINAL := .venv-original

# The tests and daemons find the package by path, whatever the folder they are started in.
export PYTHONPATH := $(CURDIR)

# pip runs for two stamps at once would meet in one folder.
.NOTPARALLEL:
.PHONY: run test bench lint docs clean

# `exec`: make's signals are to reach it, not a shell between them.
run: $(VENV)/run.stamp
	exec $(BIN)/python -m cocaine_tx.daemon.quickstart \
	    --http-port $(HTTP_PORT) --locator-port $(LOCATOR_PORT) --data "$(DATA_DIR)"

test: $(VENV)/test.stamp $(ORIGINAL)/ready
	COCAINE_ORIGINAL_PYTHON="$(CURDIR)/$(ORIGINAL)/bin/python" COCAINE_ORIGINAL_PATH="$(CURDIR)/tests/original" \
	    $(BIN)/python -m tests.run $(TESTS)

bench: $(VENV)/bench.stamp $(ORIGINAL)/ready
	COCAINE_ORIGINAL_PYTHON="$(CURDIR)/$(ORIGINAL)/bin/python" COCAINE_ORIGINAL_PATH="$(CURDIR)/tests/original" \
	    $(BIN)/python -m bench

# Tables are aligned by hand, so there is no `ruff format --check`.
lint: $(VENV)/lint.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/docs.stamp
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

clean:
	rm -rf $(VENV) $(ORIGINAL) _trial_temp* docs/_build docs/generated build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .hypothesis

# --- set-up -----------------------------------------------------------------------------------------------------------
#
# One stamp for each list of requirements in setup.cfg. The install is editable in the `compat` mode, which puts this
# folder on sys.path; the usual editable mode hides twisted/plugins from twistd.

# A half-made environment must not look like one the next time.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { \
	    rm -rf $(VENV); \
	    echo "$(PYTHON) cannot make an environment; on Debian and Ubuntu install python3-venv, then try again" >&2; \
	    exit 1; }

$(VENV)/run.stamp: setup.cfg setup.py pyproject.toml | $(BIN)/python
	PYTHONPATH= $(BIN)/python -m pip install --disable-pip-version-check --quiet \
	    --config-settings editable_mode=compat -e .
	touch $@

$(VENV)/%.stamp: $(VENV)/run.stamp
	PYTHONPATH= $(BIN)/python -m pip install --disable-pip-version-check --quiet \
	    --config-settings editable_mode=compat -e '.[$*]'
	touch $@

# The original framework is a guest: where it cannot be built, its tests are skipped and say so.
$(ORIGINAL)/ready: tests/original/make_env.sh tests/original/sitecustomize.py
	PYTHONPATH= bash tests/original/make_env.sh $(PYTHON) $(ORIGINAL) || \
	    echo "the original framework could not be built here; the tests that need it will be skipped" >&2
