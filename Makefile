# `make fit` and `make test` do all the set-up; nothing else needs to be installed by hand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
BENCH := $(VENV)/.installed-bench
THREADS ?= 2

# How many times as many broken inputs `make fuzz` tries as the suite does.
FUZZ ?= 10

.PHONY: fit test test-slow test-real fuzz lint embedded figures clean

fit: $(INSTALLED)
	$(BIN)/lit-pref fit --config configs/dpo_budget.yaml

test: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(THREADS) -m "not slow and not real"

test-slow: $(BENCH)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

# On pretrained chat models: MODELS is a folder that holds SmolLM2-135M-Instruct and Qwen2.5-Coder-0.5B-Instruct, each as
# a transformers folder or a .gguf file, or both, whose names begin with smollm2 and qwen2.5-coder-0.5b.
test-real: $(BENCH)
	LIT_PREF_REAL_MODELS=$(abspath $(MODELS)) $(BIN)/python -m pytest -m real tests/real

# Broken rows, commands, caches and checkpoints, made at random from a seed; ten times what `make test` tries of them.
# Minutes on 2 cores; FUZZ=1 is the suite's own share.
fuzz: $(DEV)
	OMP_NUM_THREADS=1 LIT_PREF_FUZZ=$(FUZZ) $(BIN)/python -m pytest -n $(THREADS) tests/fuzz

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Rebuilds the shipped weights from their configs; about 10 minutes on 2 cores.
embedded: $(INSTALLED)
	BIN=$(BIN) bash configs/embedded/build.sh

# The README's table and plot: every method over learning rates and seeds; about an hour on 2 cores.
figures: $(BENCH)
	$(BIN)/python -m benchmarks.learning_rates --output benchmarks/results
	$(BIN)/python -m benchmarks.learning_rates_figures benchmarks/results/learning_rates_test.csv

# constraints.txt pins every version, so that torch is the CPU build that the tests ran with and nothing drifts.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lit_pref needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(DEV): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(BENCH): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
