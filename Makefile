# Each target does all its own set-up in .venv; the only needs are Python ≥ 3.11, a C compiler and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROWS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

help: ## what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: $(VENV)/.demo ## train the textbook's network on real digits with every regulariser (digits.png)
	$(BIN)/python examples/digits.py

test: $(VENV)/.test ## the tests
	$(BIN)/python -m pytest

lint: $(VENV)/.lint ## style of Python and Cython; warnings of the C core
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint fastreg

bench: $(VENV)/.bench ## fastreg against its peers and the machine's limit (benchmarks/REPORT.md); ROWS=pattern for some
	$(BIN)/python benchmarks/report.py $(if $(ROWS),--rows "$(ROWS)")

clean: ## leave nothing but what git knows
	rm -rf $(VENV) build dist *.egg-info fastreg/*.c fastreg/*.so .pytest_cache .hypothesis .ruff_cache

# ---- set-up ------------------------------------------------------------------------------------------------------

SOURCES := $(wildcard setup.py pyproject.toml csrc/* csrc/kernels/* fastreg/*.pyx fastreg/*.pxd)

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/.built: $(VENV)/.python $(SOURCES)
	$(BIN)/pip install --quiet --group build wheel
	$(BIN)/pip install --quiet --no-build-isolation --editable .
	touch $@

$(VENV)/.test $(VENV)/.demo $(VENV)/.lint: $(VENV)/.%: $(VENV)/.built
	$(BIN)/pip install --quiet --group $*
	touch $@

$(VENV)/.bench: $(VENV)/.built
	$(BIN)/pip install --quiet --group bench
	touch $@
