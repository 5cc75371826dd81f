# `make` lists the targets. Needs GNU make 3.81 or newer, and Python 3.11 to
# 3.13 as $(PYTHON). Installs with uv where it is found, with pip otherwise.

PYTHON ?= python3
VENV ?= .venv
CONFIG ?= configs/digits.py
WORKDIR ?= runs/digits
KILLS ?= 20
FIELDS ?=
ARGS ?=
# A file of versions with hashes to install first, as CI does with
# LOCK=requirements.lock; what is left keeps to the ranges.
LOCK ?=

BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help train test torture parity export demo matrix docs check format \
  lock endurance clean

help: ## List the targets.
	@echo 'usage: make TARGET [VARIABLE=value ...]'
	@echo
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | \
	  awk -F '|' '{ printf "  %-9s %s\n", $$1, $$2 }'
	@echo
	@echo 'variables: PYTHON=$(PYTHON) VENV=$(VENV) CONFIG=$(CONFIG)'
	@echo '           WORKDIR=$(WORKDIR) KILLS=$(KILLS) ARGS="--config.seed=1"'

# Fewer malloc arenas: 0.3 GB less memory, the same speed.
train: $(VENV)/.runtime ## Train and evaluate CONFIG into WORKDIR.
	MALLOC_ARENA_MAX=4 $(BIN)/python -m mobilevit_jax.main --config=$(CONFIG) \
	  --workdir=$(WORKDIR) $(ARGS)

test: $(VENV)/.dev ## Run every test, or those that ARGS names.
	$(BIN)/python -m pytest -n 2 --dist=loadfile $(ARGS)

torture: $(VENV)/.dev ## Kill a run of CONFIG at KILLS=20 moments, and compare.
	KILLS=$(KILLS) TORTURE_CONFIG=$(CONFIG) TORTURE_FIELDS="$(FIELDS)" \
	  $(BIN)/python -m pytest -n 0 -s tests/test_torture.py $(ARGS)

# ARGS="1000 --kills=9": fewer steps, and workers killed on the way.
endurance: $(VENV)/.dev ## Run 20,000 steps, and print what they hold on to.
	$(BIN)/python -m tests.endurance $(ARGS)

# One thread each: torch's and XLA's pools would otherwise fight for the cores.
parity: .venv-parity/.parity ## Compare with PyTorch, in .venv-parity (gigabytes).
	OMP_NUM_THREADS=1 .venv-parity/bin/python -m pytest -m parity tests/parity \
	  -n 2 --dist=loadscope $(ARGS)

export: ## Run exported files in their engines, in .venv-export.
	$(MAKE) demo
	.venv-export/bin/python -m pytest -m export tests/export tests/demo \
	  tests/benchmarks tests/notebooks $(ARGS)

# 61 MB that the repository doesn't have, and that a wheel built now holds.
demo: ## Fetch the demo's engines from npm, and build its pages into site/demo.
	$(MAKE) .venv-export/.export VENV=.venv-export
	.venv-export/bin/python -m mobilevit_jax.demo.engines
	JAX_PLATFORMS=cpu .venv-export/bin/python -m docs.generate.demos site/demo

matrix: ## Print which exports work, verified one by one (half an hour).
	$(MAKE) .venv-export/.export VENV=.venv-export
	.venv-export/bin/python -m benchmarks matrix $(ARGS)

# Strict: whatever MkDocs or a plug-in warns of fails the build.
docs: $(VENV)/.docs ## Build the documentation's site into site/.
	NO_MKDOCS_2_WARNING=1 JAX_PLATFORMS=cpu $(BIN)/python -m mkdocs build \
	  --strict --quiet $(ARGS)
	@echo 'open site/index.html'

check: $(VENV)/.dev ## Check format, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/shellcheck -x launch/*.sh launch/slurm.sbatch .ci/run \
	  .ci/wheel

format: $(VENV)/.dev ## Format the code and fix what lint can.
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lock: ## Write requirements.lock anew: the newest versions, with hashes.
	uv pip compile --quiet --upgrade --universal --generate-hashes \
	  --no-emit-index-url --python-version 3.11 --custom-compile-command \
	  'make lock' requirements.txt -o requirements.lock

clean: ## Delete environments and caches; runs/ stays.
	rm -rf .venv .venv-* .cache .hypothesis .pytest_cache .ruff_cache build site
	rm -rf *.egg-info mobilevit_jax/demo/engines
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is touched last, so an install that failed or was interrupted leaves
# none, and a stamp older than its requirements installs again.
$(VENV)/.runtime: requirements.txt
	$(call install,requirements.txt)
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt
	$(call install,requirements-dev.txt)
	@touch $(VENV)/.runtime $@

$(VENV)/.docs: requirements-docs.txt requirements.txt
	$(call install,requirements-docs.txt)
	@touch $(VENV)/.runtime $@

.venv-parity/.parity: requirements-parity.txt requirements-dev.txt \
    requirements.txt
	$(MAKE) .venv-parity/.dev VENV=.venv-parity
	@echo 'installing requirements-parity.txt into .venv-parity: gigabytes'
	@# With pip, whose settings may say where PyTorch comes from.
	@.venv-parity/bin/python -m ensurepip >/dev/null
	.venv-parity/bin/python -m pip install --quiet \
	  --disable-pip-version-check -r requirements-parity.txt
	@touch $@

$(VENV)/.export: requirements-export.txt requirements-dev.txt requirements.txt
	$(call install,requirements-export.txt -r requirements-dev.txt)
	@touch $(VENV)/.runtime $(VENV)/.dev $@

define install
@$(PYTHON) -c '$(check_python)'
@echo 'installing $(1) into $(VENV): a minute or two the first time'
@if uv --version >/dev/null 2>&1; then \
  uv venv --quiet --allow-existing $(VENV) --python \
    "$$($(PYTHON) -c 'import sys; print(sys.executable)')" && \
  $(if $(LOCK),uv pip install --quiet --python $(BIN)/python --require-hashes \
    -r $(LOCK) &&) \
  uv pip install --quiet --python $(BIN)/python -r $(1); \
else \
  $(PYTHON) -m venv $(VENV) && \
  $(if $(LOCK),$(BIN)/python -m pip install --quiet --require-hashes \
    --disable-pip-version-check -r $(LOCK) &&) \
  $(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(1); \
fi
endef

check_python := import sys; v = sys.version_info; \
  (3, 11) <= v < (3, 14) or sys.exit("$(PYTHON) is Python %d.%d:" % v[:2] + \
  " mobilevit_jax needs 3.11 to 3.13, try make PYTHON=/path/to/python3.12")
