# `make run` and `make test` are the two commands of the README; `make` alone lists the others.

PYTHON ?= python3
FILE ?= bonevalue.yaml
TESTS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# A benchmark is each file of the folder; one that begins with _ is shared by several.
BENCHMARKS := $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run install dev test check style types mypy pyright floors docs docs-write format quickstart bench clean

help: ## list the targets
	@echo 'make TARGET, where TARGET is one of:'
	@awk -F ':[^#]*## ' '/^[a-z-]+:[^#]*## / { printf "  %-11s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.product ## install what is missing and start bv-run on bonevalue.yaml (another file: FILE=...)
	@exec $(BIN)/bv-run $(FILE)

install: $(VENV)/.product ## make .venv and install the product into it

dev: $(VENV)/.dev ## the same, with the tools of `make check` and `make test`

test: $(VENV)/.dev ## install what the tests need and run them all; a skipped test fails (some: TESTS=tests/wire)
	@exec $(BIN)/python -m pytest -n auto -p tests.support.noskip --durations=10 $(TESTS)

check: style types floors docs ## format, lint, types, import floors, generated documentation

style: $(VENV)/.dev ## format and lint, without changing a file
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .

types: mypy pyright ## both type checkers

mypy: $(VENV)/.dev
	$(BIN)/mypy

pyright: $(VENV)/.dev
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

floors: $(VENV)/.dev ## which module may import which
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/.dev ## whether the generated pages fit the code
	$(BIN)/python scripts/make_docs.py --check

docs-write: $(VENV)/.dev ## write the generated pages anew
	$(BIN)/python scripts/make_docs.py

format: $(VENV)/.dev ## format, and mend what the linter can mend
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

quickstart: ## try the README's quick start in a fresh clone of what is committed
	@scripts/try-quickstart.sh

bench: $(VENV)/.dev ## run every benchmark; one JSON object a line
	@for benchmark in $(BENCHMARKS); do PYTHONPATH=. $(BIN)/python "$$benchmark" || exit; done

clean: ## remove .venv and what the tools left
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The stamps make a second run instant; pyproject.toml is what they depend on.

$(VENV)/.made:
	@scripts/make-venv.sh $(VENV) $(PYTHON)
	@touch $@

$(VENV)/.product: pyproject.toml | $(VENV)/.made
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.made
	@$(PIP) install --editable . --group dev
	@touch $(VENV)/.product $@
