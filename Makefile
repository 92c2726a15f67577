# Every target makes its own environment in .venv, once. No root, no network beyond pip.
#
#   make demo      audit the shipped model on the held-out split and print the path of the scorecard
#   make test      all tests
#   make check     linter, formatter, type checker
#   make pocket    rebuild the shipped model from nothing (45 minutes on two idle cores with AVX-512), then its adapters
#   make bench     run the command of every claim that was measured on other weights and print all claims
#                  (all of them: ALL=1; those of the engines alone: ONLY=bench)
#   make results   write docs/results.md and the README's number from bench/results/

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= torch==2.13.0
# Elsewhere: TORCH_INDEX=https://download.pytorch.org/whl/cpu keeps gigabytes of CUDA libraries away.
TORCH_INDEX ?=
WORKERS ?= 2

BIN := .venv/bin
INSTALLED := .venv/installed

# One thread per test worker: two workers share two cores.
test: export OMP_NUM_THREADS = 1
# glibc's allocator otherwise returns large buffers to the system after every step: 10-20 % of a training run.
pocket: export MALLOC_MMAP_THRESHOLD_ = 2000000000
pocket: export MALLOC_TRIM_THRESHOLD_ = 4000000000

.PHONY: demo test check pocket bench results clean
.DEFAULT_GOAL := demo

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "earnest needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(INSTALLED)
	$(BIN)/earnest demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

pocket: $(INSTALLED)
	$(BIN)/earnest train recipes/pocket/base.toml
	$(BIN)/earnest train recipes/pocket/reliability.toml
	$(BIN)/earnest train recipes/pocket/faithfulness.toml
	$(BIN)/earnest train recipes/pocket/safety.toml
	$(BIN)/earnest train recipes/pocket/relisten-rl.toml

bench: $(INSTALLED)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev,bench]"
	$(BIN)/python bench/results.py --measure $(if $(ALL),--all) $(if $(ONLY),--only $(ONLY))

results: $(INSTALLED)
	$(BIN)/python bench/results.py

clean:
	rm -rf .venv
