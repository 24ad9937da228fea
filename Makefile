# Everything runs in .venv, made on first use. PYTHON=python3.12 picks another interpreter; CONSTRAINTS= lifts the pins.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
WORKERS ?= 2
BIN := .venv/bin

.PHONY: quickstart test test-all lint format docs clean

# Installs the package alone, without the tools of development.
quickstart: .venv/installed
	$(BIN)/fastvit quickstart

test: .venv/installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-all: .venv/installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m ""

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/installed-dev
	$(BIN)/zensical build --strict --clean

# An environment with all extras has the package, too: its stamp is at least as new as that of the package alone.
.venv/installed: pyproject.toml $(CONSTRAINTS)
	$(call install,.)
	touch $@

.venv/installed-dev: pyproject.toml $(CONSTRAINTS)
	$(call install,.[dev])
	touch .venv/installed $@

# $(call install,PACKAGE) makes .venv where there is none and installs the package in it, editable: with uv where it is
# installed, else with pip. Their own progress is shown: torch is the long part.
UV := $(shell command -v uv 2>/dev/null)
define install
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fastvit needs Python 3.11 or newer; this is " + sys.version.split()[0] + ": make PYTHON=...")'
$(if $(UV),$(BIN)/python -c "" 2>/dev/null || $(UV) venv --clear --python $(PYTHON) .venv)
$(if $(UV),,$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv)
$(if $(UV),$(UV) pip install --python $(BIN)/python,$(BIN)/python -m pip install --disable-pip-version-check) $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '$(1)'
endef

clean:
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache site dist
