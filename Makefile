# make quickstart: set up and run the whole way.  make test: set up and check everything.  make help: the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
BENCH  ?= $(filter-out measure workbench,$(basename $(notdir $(wildcard benchmarks/*.py))))
export PYTHONUNBUFFERED = 1

.PHONY: help install quickstart test test-nightly test-browser test-gpu pictures test-ray lint format types bench clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.installed  ## set up .venv with the pinned versions (seconds when it is there already)

# The CPU build of torch is asked for by its own version first, so that no GPU packages come along on a machine without one.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Pellucid needs Python 3.11 or newer; this is $$($(PYTHON) --version). Give one: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: install  ## the main job: raw text -> your own assistant -> report (ARGS="--minutes 10" for more)
	$(BIN)/pellucid quickstart $(ARGS)

test: install  ## formatting, linters, types, import rules and all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

test-nightly: install  ## the tests that take minutes
	$(BIN)/pytest -m nightly

# chromium is Debian's; where it is missing and cannot be installed the tests skip, and say so.
test-browser: install  ## every page of the workbench in a real browser
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && timeout 600 sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null'; } || echo "chromium is not here, and could not be installed (apt-get as root does it)."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[browser]' || echo "playwright could not be installed."
	$(BIN)/pytest -m browser -rs tests/see/browser

# Where the torch of .venv is a build for processors, put one for your GPU there first (https://pytorch.org says which).
test-gpu: install  ## decoding and training on a GPU (skipped, and said, where torch finds no CUDA)
	$(BIN)/pytest -m gpu -rs tests/generation tests/pretrain

pictures: install  ## the screenshots of the docs, taken by these tests (RUN=runs/quickstart)
	PELLUCID_PICTURES=docs/pictures PELLUCID_BROWSER_RUN=$(or $(RUN),runs/quickstart) $(BIN)/pytest -m browser -k right_small tests/see/browser

bench: install  ## speed and memory beside peers, into benchmarks/results (BENCH=text ARGS="--only encode"; needs PELLUCID_DATA)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[peers]'
	for name in $(BENCH); do $(BIN)/python benchmarks/$$name.py $(ARGS) || exit; done

test-ray: install  ## encoding with Ray on this machine (first: .venv/bin/pip install -c constraints.txt -e '.[ray]')
	$(BIN)/pytest -m ray

format: install  ## put the code in shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and caches (your runs stay)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
