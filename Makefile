# make demo    the whole job on real text, from nothing to a report: minutes on a CPU
# make test    the tests; make test-full also runs the slow ones
# make lint types docs clean
# make bench   every benchmark; make bench-NAME one of benchmarks/NAME.py
#
# Everything runs in one virtual environment, which the first target makes and later ones reuse.

PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
STAMP := $(VENV)/proponent-installed
HALF_MADE := $(VENV)/proponent-installing

# A process for every core, up to four; files of tests are shared out whole, since their tests share what they make.
PROCESSES := --numprocesses auto --maxprocesses 4 --dist loadfile

BENCHMARKS := $(patsubst benchmarks/%.py,bench-%,$(wildcard benchmarks/*.py))

.PHONY: demo test test-full lint types bench $(BENCHMARKS) docs clean
.DELETE_ON_ERROR:

demo: $(STAMP)
	@$(BIN)/proponent demo proponent-demo

test: $(STAMP)
	@$(BIN)/python -m pytest $(PROCESSES)

test-full: $(STAMP)
	@$(BIN)/python -m pytest $(PROCESSES) -m "full or not full"

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/python -m mypy

bench: $(STAMP)
	@set -e; for script in $(wildcard benchmarks/*.py); do echo "$$script"; $(BIN)/python "$$script"; done

# One of them alone; its last line has the ratios.
$(BENCHMARKS): bench-%: $(STAMP)
	@$(BIN)/python benchmarks/$*.py

docs: $(STAMP)
	@$(BIN)/python -m proponent.cli.reference > docs/commands.md.new
	@mv docs/commands.md.new docs/commands.md

# Keeps proponent-demo: people add to it.
clean:
	@rm -rf .venv build dist proponent.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# An installation that was cut short starts over; one that is out of date is only brought up to date.
# --no-compile halves the time: most of what is installed is never imported.
$(STAMP): pyproject.toml constraints.txt
	$(if $(SUPPORTED),,$(error proponent needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is $(or $(FOUND),not there); \
	name another with PYTHON=python3.12))
	@echo "Installing into $(VENV): the first time this takes minutes" >&2
	@if [ -e $(HALF_MADE) ]; then $(PYTHON) -m venv --clear $(VENV); touch $(HALF_MADE); \
	elif [ ! -x $(BIN)/pip ]; then $(PYTHON) -m venv $(VENV); touch $(HALF_MADE); fi
	@$(BIN)/python -m pip install -qq --no-compile -c constraints.txt -e '.[demo,dev]'
	@rm -f $(HALF_MADE)
	@touch $(STAMP)

FOUND = $(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2> /dev/null)
SUPPORTED = $(filter 3.11.% 3.12.% 3.13.%,$(FOUND))
