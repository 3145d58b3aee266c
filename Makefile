# `make run` and `make test` are the two commands of the README; `make` alone lists the others.

PYTHON ?= python3
FILE ?= bonevalue.yaml
TESTS ?=
BENCH ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run install dev test check style types mypy pyright tsc floors bundle browser docs docs-write format quickstart bench bench-write bench-browser bench-server clean

help: ## list the targets
	@echo 'make TARGET, where TARGET is one of:'
	@awk -F ':[^#]*## ' '/^[a-z-]+:[^#]*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/.product ## install what is missing and start bv-run on bonevalue.yaml (another file: FILE=...)
	@exec $(BIN)/bv-run $(FILE)

install: $(VENV)/.product ## make .venv and install the product into it

dev: $(VENV)/.dev ## the same, with the tools of `make check` and `make test`

test: $(VENV)/.dev $(VENV)/.lab $(VENV)/.firefox $(VENV)/.browser ## install what the tests need and run them all; a skipped test fails (some: TESTS=tests/wire)
	@exec $(BIN)/python -m pytest -n auto -p tests.support.noskip --durations=10 $(TESTS)

check: style types floors bundle docs ## format, lint, types, import floors, bundles of the browser, generated pages

style: $(VENV)/.dev ## format and lint, without changing a file
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .

types: mypy pyright tsc ## all type checkers

mypy: $(VENV)/.dev
	$(BIN)/mypy

pyright: $(VENV)/.dev
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

tsc: $(VENV)/.browser
	cd server/browser && ../../scripts/node.sh npm --silent run types

bundle: $(VENV)/.browser ## whether what browsers load fits its sources
	@scripts/node.sh server/browser/build.mjs --check

browser: $(VENV)/.browser ## build what browsers load: BV.js, BV.mjs, the console
	@scripts/node.sh server/browser/build.mjs

floors: $(VENV)/.dev ## which module may import which
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/.dev ## whether the generated pages fit the code
	$(BIN)/python scripts/make_docs.py --check
	@PYTHONPATH=. $(BIN)/python -m benchmarks.report --check

docs-write: $(VENV)/.dev ## write the generated pages anew
	$(BIN)/python scripts/make_docs.py

format: $(VENV)/.dev ## format, and mend what the linter can mend
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

quickstart: ## try the README's quick start in a fresh clone of what is committed
	@scripts/try-quickstart.sh

bench: $(VENV)/.bench ## measure the platform beside others; JSON lines (some of it: BENCH="S1 S3", BENCH="--help")
	@exec $(BIN)/python -m benchmarks $(or $(BENCH),--output build/bench.jsonl)

bench-write: $(VENV)/.dev ## put the last run of `make bench` into docs/benchmarks.md
	@$(BIN)/python -m benchmarks.report build/bench.jsonl

bench-browser: $(VENV)/.bench $(VENV)/.browser $(VENV)/.lab ## measure tabs beside PeerJS, and put it into docs/benchmarks.md
	@mkdir -p build/peerjs
	@scripts/node.sh npm install --prefix build/peerjs --no-audit --no-fund --loglevel=error peerjs@1.5.5 peer@1.0.2
	@$(BIN)/python -m benchmarks.browser --output build/bench-browser.jsonl
	@$(BIN)/python -m benchmarks.report --browser build/bench-browser.jsonl

bench-server: $(VENV)/.dev ## measure logins, signatures and the relay of the discovery server; JSON lines
	@for each in connection_signatures key_login relay; do $(BIN)/python -m benchmarks.$$each || exit; done

clean: ## remove .venv and what the tools left
	rm -rf $(VENV) build dist server/browser/node_modules server/browser/dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

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

# The tools that make and check what browsers load, as package-lock.json has them.
$(VENV)/.browser: server/browser/package-lock.json $(VENV)/.dev
	@cd server/browser && ../../scripts/node.sh npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# Where nothing can be installed, the tests of the lab and of the browser fail and say what they lack; all others run.
$(VENV)/.lab: | $(VENV)/.made
	@for program in ip iptables-restore turnserver faketime chromium; do \
		PATH="$$PATH:/usr/sbin:/sbin" command -v $$program >/dev/null || missing=yes; \
	done; \
	[ -z "$$missing" ] || scripts/apt-install.sh 'the lab of networks and the browser in the tests' iproute2 iptables coturn faketime chromium || exit 0; \
	touch $@

# By itself, since not every Debian-like system has it under this name: the others must not stay away with it.
$(VENV)/.firefox: | $(VENV)/.made
	@command -v firefox-esr >/dev/null || scripts/apt-install.sh 'the tests of the browser library in Firefox' firefox-esr || exit 0; \
	touch $@

# Without nats-server, as where nothing can be installed, the run says that it is left out.
$(VENV)/.bench: pyproject.toml | $(VENV)/.dev
	@$(PIP) install --group bench
	@command -v nats-server >/dev/null || scripts/apt-install.sh 'the benchmarks' nats-server || true
	@touch $@
