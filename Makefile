# Everything runs in .venv, made on first use. PYTHON=python3.12 picks another interpreter; CONSTRAINTS= lifts the pins.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
WORKERS ?= 2
BIN := .venv/bin

.PHONY: quickstart test test-all lint format docs clean

quickstart: .venv/installed
	$(BIN)/fastvit quickstart

test: .venv/installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-all: .venv/installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m ""

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/installed
	$(BIN)/mkdocs build --strict

# Pip's own progress is shown: torch is the long part.
.venv/installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fastvit needs Python 3.11 or newer; this is " + sys.version.split()[0] + ": make PYTHON=...")'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache site dist
