# `make help` lists what there is. Everything runs in .venv, made from requirements.lock on first use.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOG := $(VENV)/setup.log
LOCK := requirements.lock
LOCK_VENV := build/lock-venv
TORCH = $(shell grep '^torch==' $(LOCK))
PIP = $(BIN)/python -m pip --disable-pip-version-check
# pip compiles nothing: all files, most of which nobody imports, would take a good part of the set-up.
INSTALL = $(PIP) install --no-compile $(PIP_ARGS)
# Python keeps what it compiled, also where the environment forbids it (many containers do), or each process of a
# test run would compile diffusers and its own 4,000 files again.
unexport PYTHONDONTWRITEBYTECODE
# A worker a core, each with one thread: two threads a test on a busy core wait for one another.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal
# What takes locks is tested twice: by flock with the others, and by owner files, which Windows has.
LOCK_TESTS := tests/runs tests/pairs/test_blocks.py tests/report/test_status.py tests/storage/test_files.py tests/test_workers.py

# pip leaves a core idle: what every later command imports is compiled there meanwhile. Only pip's word counts.
IMPORT_TORCH := $(BIN)/python -c "import torch._dynamo"
IMPORT_MODELS := $(BIN)/python -c "import accelerate, peft; from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel"
IMPORT_OTHERS := $(BIN)/python -c "import matplotlib.figure, playwright.sync_api, pytest, starlette.testclient, tensorboard, torchmetrics, typer"
beside = $(1) & $(2); said=$$?; wait; exit $$said

# A step of the set-up: one line for people, pip's words in the log, and the end of the log when it fails.
define step
@echo "set-up: $(1)"; ($(2)) >>$(LOG) 2>&1 || { tail -n 30 $(LOG) >&2; echo "set-up failed; all of it: $(LOG)" >&2; exit 1; }
endef

.PHONY: help demo test slow check bench lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, this is {v}: make PYTHON=python3.11 ...")'
	@echo "set-up: environment $(VENV)"; $(PYTHON) -m venv $(VENV); : >$(LOG)
	$(call step,$(TORCH) (the largest part),$(INSTALL) -c $(LOCK) $(TORCH))
	$(call step,the other packages of $(LOCK),$(call beside,$(IMPORT_TORCH),$(INSTALL) -r $(LOCK)))
	$(call step,duo_unlearn itself,$(call beside,$(IMPORT_MODELS) & $(IMPORT_OTHERS),$(PIP) install --no-deps --no-build-isolation -e .))
	@touch $@

demo: $(STAMP) ## erase a concept from the embedded model: minutes on a laptop, report in runs/demo
	@$(BIN)/duo demo

test: $(STAMP) ## the fast tests
	@$(PYTEST) -m "not slow"

slow: $(STAMP) ## the slow tests
	@command -v chromium chromium-browser google-chrome >/dev/null || (apt-get -q update && apt-get -qy install chromium) >>$(LOG) 2>&1 || echo "no Chromium, so its test is skipped: $(LOG)" >&2
	@$(PYTEST) -m slow
	@DUO_LOCKS=files $(PYTEST) -m "not slow" $(LOCK_TESTS)

check: $(STAMP) ## linter, format, types, import layers
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 src
	@$(BIN)/lint-imports

bench: $(STAMP) ## all benchmarks that need no GPU, and docs/benchmarks-table.md; when nothing else runs
	@$(BIN)/python benchmarks/all.py

lock: ## write requirements.lock anew: the newest versions that pyproject.toml allows, beside the same torch
	@rm -rf $(LOCK_VENV); $(PYTHON) -m venv $(LOCK_VENV)
	@$(LOCK_VENV)/bin/python -m pip --disable-pip-version-check install --quiet $(PIP_ARGS) $(TORCH)
	@$(LOCK_VENV)/bin/python -m pip --disable-pip-version-check install --quiet $(PIP_ARGS) $(TORCH) "hatchling" ".[trackers,nudenet,ui,dev]"
	@{ grep '^#' $(LOCK); $(LOCK_VENV)/bin/python -m pip freeze --all --exclude pip --exclude duo_unlearn | sed -E 's/^([^#+]*)\+.*/\1/'; } >$(LOCK).new
	@mv $(LOCK).new $(LOCK); rm -rf $(LOCK_VENV); echo "$(LOCK) written; git diff shows what changed"

clean: ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
