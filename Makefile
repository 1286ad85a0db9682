# Two commands matter: `make demo` shows the service at work, `make test` runs the whole test suite.
# Needs Python 3.11 or newer with its venv module, and make. Everything is installed into .venv and nowhere else.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Touched after a complete install, so that an interrupted one is done again.
STAMP  := $(VENV)/.installed

# Tests with a Ray cluster or a whole stack of processes have the machine for themselves; all others run side by side.
ALONE ?= tests/integration/ tests/chaos/ tests/e2e/
JOBS ?= auto

# For `make images`.
DOCKER       ?= docker
BASE_IMAGE   ?= python:3.11-slim
# An image with a directory of wheels, and a bundle of certificates, for a build behind a proxy; see the Dockerfile.
WHEELS_IMAGE ?= scratch
CA_BUNDLE    ?=

.DEFAULT_GOAL := help
SOAK ?=

.PHONY: help demo test soak check format install up images env clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## Install, start a service here, meta-train and adapt to new tasks: the whole product in one go
	$(BIN)/warploom demo

test: $(STAMP) ## Install and run the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) warploom service $(filter-out $(ALONE),$(wildcard tests/*/))
	$(BIN)/python -m pytest $(ALONE)

soak: $(STAMP) ## Jobs under random kills for an hour or so; SOAK="--jobs 5 --faults 20 --seed 7" changes what is done
	$(BIN)/python -m tests.chaos.soak $(SOAK)
	$(BIN)/python -m tests.chaos.submissions

check: $(STAMP) ## Lint, formatting, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

CASES ?= 20000
SEED  ?= 1
fuzz: $(STAMP) ## Schemathesis over the whole API: CASES=20000 SEED=1
	PYTHONPATH=. $(BIN)/python benchmarks/fuzz_api.py --cases $(CASES) --seed $(SEED)

format: $(STAMP) ## Repair what the linter and the formatter can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(STAMP) ## Only the install: .venv with everything that is needed to run, test and develop

up: $(STAMP) ## Start the service on this machine; Ctrl-C stops it
	$(BIN)/warploom up

images: ## Build the two container images
	DOCKER_BUILDKIT=1 $(DOCKER) build --target ray -t warploom-ray $(BUILD_OPTIONS) .
	DOCKER_BUILDKIT=1 $(DOCKER) build --target api -t warploom-api $(BUILD_OPTIONS) .

BUILD_OPTIONS = --build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg WHEELS_IMAGE=$(WHEELS_IMAGE) \
	$(if $(CA_BUNDLE),--secret id=ca_bundle$(comma)src=$(CA_BUNDLE))
comma := ,

env: ## Write .env with random secrets for docker compose
	deploy/make-env.sh

clean: ## Remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

# torch first and by itself: it is by far the largest, and resolved alone it takes the build that the machine's pip is
# configured for (CPU or CUDA) instead of whatever another package's requirement leads to.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "the venv module is missing (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --progress-bar off "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install --progress-bar off -e '.[service,dev]' -c constraints.txt
	@touch $@
