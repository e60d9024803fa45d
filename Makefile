# Everything a checkout needs, each target doing its own set-up. `make` alone lists the targets.

PYTHON ?= python3
VENV   := .venv
CLIENTS := .venv-clients
# Several files of tests at a time; `make test PYTEST_ARGS=-x` runs one after the other and stops at a failure.
PYTEST_ARGS ?= -n logical --maxprocesses 4 --dist loadfile
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --require-virtualenv
# llama.cpp is compiled on the first install; use every core for it.
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.PHONY: help venv clients demo test lint format fuzz bench serving system clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.runtime ## create .venv and install lading into it

$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@for tool in cc c++; do command -v $$tool >/dev/null || \
	  { echo "error: a C and C++ compiler is needed (Debian: apt install build-essential)" >&2; exit 1; }; done
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing. The first time, llama.cpp is compiled: 6 to 9 minutes on 2 cores, less on more."
	@$(PIP) install --quiet --upgrade --constraint constraints.txt pip setuptools
	@PYTHONWARNINGS=ignore $(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime tests/requirements-no-deps.txt
	@PYTHONWARNINGS=ignore $(PIP) install --quiet --constraint constraints.txt --editable '.[convert,test,dev]'
	@$(PIP) install --quiet --no-deps --requirement tests/requirements-no-deps.txt
	@touch $@

# Frameworks that the tests run unchanged, in an environment of their own: they and we need not agree on
# versions. Without Node.js, or where its registry cannot be reached, those of JavaScript skip.
clients: $(CLIENTS)/.done ## install the client libraries that the tests run

$(CLIENTS)/.done: tests/clients/requirements.txt tests/clients/node/package.json
	@test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	@if command -v npm >/dev/null; then \
	  npm install --prefix tests/clients/node --no-package-lock --no-audit --no-fund --loglevel=error >/dev/null || \
	  echo "note: npm cannot install; tests with JavaScript clients will skip"; fi
	@touch $@

demo: $(VENV)/.runtime ## create, push, pull, serve and chat, as two machines would
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/quickstart/demo.sh

test: $(VENV)/.dev $(CLIENTS)/.done system ## run the whole test suite
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Programs from the system that some tests talk to. Installed where this is root on Debian; elsewhere
# those tests skip and say what is missing.
system:
	@sh tests/system.sh

lint: $(VENV)/.dev ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(VENV)/.dev ## ask every operation of the API many odd things (about 10 minutes)
	LADING_FUZZ_EXAMPLES=100 $(BIN)/python -m pytest --timeout 1200 tests/server/test_openapi.py

bench: $(VENV)/.dev ## the figures of the README, measured here
	@for name in startup create_throughput transfer_memory; do \
	  echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

serving: $(VENV)/.dev ## speed of serving; SERVING="--llama-server PATH --peer NAME=URL" for comparison
	$(BIN)/python benchmarks/serving.py --lading $(SERVING)

clean: ## remove what the other targets made
	rm -rf $(VENV) $(CLIENTS) tests/clients/node/node_modules build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
