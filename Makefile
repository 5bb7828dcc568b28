# make demo: the whole road on this CPU.   make test: every test.   make check: lint, types, Megatron's wheels, tests.
# Needs Python 3.12 or 3.13 (megatron-core's wheel with pretrain() does) and the network for the first time.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= $(shell for python in python3.12 python3.13 $(HOME)/.pyenv/versions/3.1[23]*/bin/python3 python3; do \
	"$$python" -c 'import sys, venv; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo "$$python" && break; done)

.PHONY: demo test check lint versions format clean

demo: $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/demo.sh

test: $(READY)
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

check: lint versions test

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The wheels of Megatron beside the installed one: fetched once, 34 MB, into pytest's cache folder.
versions: $(READY)
	$(BIN)/python -m pytest tests/versions/wheels.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# constraints.txt holds the versions that the tests were run with; setup.cfg says which ones are allowed.
$(READY): setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "== making $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv $(VENV); }
	@echo "== installing into $(VENV) (the first time takes some minutes: torch is large)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,ray,dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo-out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
