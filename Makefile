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
# What the package runs with, and that with what its developers need: a demo does not wait for the latter.
RUNS := $(VENV)/.runs
STAMP := $(VENV)/.installed
LOG := $(VENV)/setup.log
LOCKS := requirements.lock requirements-dev.lock
TORCH = $(shell grep '^torch==' requirements-torch.txt)
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

# Ray takes 76 MB, so it is no part of the locks. Its tests start processes on every core, and so run one by one.
RAY := ray[client]==2.60.0
RAY_TESTS := tests/test_ray.py tests/test_commands_by_ray.py

# torch has no hash and the others have, which pip keeps apart; so two of them work side by side.
both = $(1) & torch=$$!; $(2); said=$$?; wait $$torch || said=$$?; exit $$said
# pip leaves a core idle: what every later command imports is compiled there meanwhile. Only pip's word counts.
IMPORT_TORCH := $(BIN)/python -c "import torch._dynamo"
IMPORT_MODELS := $(BIN)/python -c "import accelerate, peft; from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel"
IMPORT_OTHERS := $(BIN)/python -c "import matplotlib.figure, tensorboard, torchmetrics, typer"
beside = $(1) & $(2); said=$$?; wait; exit $$said

# What `make lock` works in, and how it resolves: for every system, with hashes, and without what a CUDA build needs.
DIR := build/lock
PIP_INTO = $(DIR)/venv/bin/python -m pip --disable-pip-version-check install --quiet $(PIP_ARGS)
RESOLVE = $(DIR)/venv/bin/uv pip compile --quiet --override $(DIR)/no-torch --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
RUN_EXTRAS := --extra trackers --extra ui

# Where `make dist` installs the wheel, with nothing but what it runs with. `python -m build` makes the wheel from the
# sdist, as pip does, so what is installed went through both.
ALONE := build/alone
PIP_ALONE = $(ALONE)/bin/python -m pip --disable-pip-version-check install -qq $(PIP_ARGS)

# A step of the set-up: one line for people, pip's words in the log, and the end of the log when it fails.
define step
@echo "set-up: $(1)"; ($(2)) >>$(LOG) 2>&1 || { tail -n 30 $(LOG) >&2; echo "set-up failed; all of it: $(LOG)" >&2; exit 1; }
endef

.PHONY: help demo test slow ray check docs dist bench lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

$(RUNS): requirements.lock requirements-torch.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, this is {v}: make PYTHON=python3.11 ...")'
	@echo "set-up: environment $(VENV)"; $(PYTHON) -m venv $(VENV); : >$(LOG)
	$(call step,$(TORCH) and the packages of requirements.lock,$(call both,$(INSTALL) --no-deps $(TORCH),$(INSTALL) --no-deps --require-hashes -r requirements.lock))
	$(call step,what this build of torch needs beside,$(call beside,$(IMPORT_TORCH),$(INSTALL) $(TORCH)))
	$(call step,duo_unlearn itself,$(call beside,$(IMPORT_MODELS) & $(IMPORT_OTHERS),$(PIP) install --no-deps --no-build-isolation -e .))
	@touch $@

$(STAMP): $(RUNS) requirements-dev.lock
	$(call step,the packages of requirements-dev.lock,$(INSTALL) --no-deps --require-hashes -r requirements-dev.lock)
	@touch $@

demo: $(RUNS) ## erase a concept from the embedded model: minutes on a laptop, report in runs/demo
	@$(BIN)/duo demo

test: $(STAMP) ## the fast tests
	@$(PYTEST) -m "not slow"

slow: $(STAMP) ## the slow tests
	@command -v chromium chromium-browser google-chrome >/dev/null || (apt-get -q update && apt-get -qy install chromium) >>$(LOG) 2>&1 || echo "no Chromium, so its test is skipped: $(LOG)" >&2
	@$(PYTEST) -m slow $(RAY_TESTS:%=--ignore %)
	@DUO_LOCKS=files $(PYTEST) -m "not slow" $(LOCK_TESTS)

ray: $(STAMP) ## the tests of workers by Ray, which is installed for them
	@$(BIN)/python -c "import ray" 2>/dev/null || $(INSTALL) "$(RAY)" >>$(LOG) 2>&1 || { tail -n 5 $(LOG) >&2; exit 1; }
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 0 $(RAY_TESTS)

check: $(STAMP) ## linter, format, types, import layers
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 src
	@$(BIN)/lint-imports

docs: $(STAMP) ## the pages and the reference of the Python interface, in build/site; warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

dist: $(STAMP) ## sdist and wheel in dist/, checked; the wheel is installed alone, and draws a picture
	@rm -rf dist $(ALONE); mkdir -p build; $(BIN)/python -m build --no-isolation >build/dist.log || { cat build/dist.log >&2; exit 1; }
	@$(BIN)/twine check --strict dist/*
	@$(PYTHON) -m venv $(ALONE); $(PIP_ALONE) --no-deps $(TORCH); $(PIP_ALONE) --no-deps --require-hashes -r requirements.lock
	@$(PIP_ALONE) $(TORCH); $(PIP_ALONE) --no-deps dist/*.whl; $(ALONE)/bin/python -m pip check
	@cd build && alone/bin/duo --version && alone/bin/duo sample "a red knight in the snow" --count 1 -o alone/knight.png

bench: $(STAMP) ## all benchmarks that need no GPU, and docs/benchmarks-table.md; when nothing else runs
	@$(BIN)/python benchmarks/all.py

lock: ## write the lock files anew: the newest versions that pyproject.toml allows, beside the same torch
	@rm -rf $(DIR); $(PYTHON) -m venv $(DIR)/venv
	@$(PIP_INTO) $(TORCH)
	@$(PIP_INTO) $(TORCH) ".[trackers,ui,nudenet,dev]"
	@$(DIR)/venv/bin/python -m pip freeze --all --exclude pip --exclude duo_unlearn --exclude torch | sed -E 's/^([^#+]*)\+.*/\1/' >$(DIR)/frozen
	@$(PIP_INTO) uv
	@echo 'torch; python_version < "3"' >$(DIR)/no-torch
	@printf '%s\n' networkx setuptools sympy hatchling >$(DIR)/set-up-needs
	@$(RESOLVE) pyproject.toml $(DIR)/set-up-needs $(RUN_EXTRAS) --constraint $(DIR)/frozen --output-file $(DIR)/requirements.lock
	@$(RESOLVE) pyproject.toml $(RUN_EXTRAS) --extra nudenet --extra dev --constraint $(DIR)/frozen \
	    $$(sed -nE 's/^([a-z0-9-]+)==[^ ]+ \\$$/--no-emit-package \1/p' $(DIR)/requirements.lock) --output-file $(DIR)/requirements-dev.lock
	@for lock in $(LOCKS); do { grep '^#' $$lock; cat $(DIR)/$$lock; } >$$lock.new; mv $$lock.new $$lock; done
	@rm -rf $(DIR); echo "$(LOCKS) written; git diff shows what changed"

clean: ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
