PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup test faults demo bench lint types check images clean
.DEFAULT_GOAL := help

help:  ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(BIN)/.ready  ## Create .venv with pinned dependencies

$(BIN)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

test: setup  ## Run the tests
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/pytest -n 2 --dist loadfile

faults: setup  ## Run tests/faults with the long ones: kills, networks, MLflow away, fuzzing, a soak
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/pytest tests/faults -m "faults or not faults" -n 2 --dist loadfile

demo: setup  ## Generate nine small datasets and run the whole pipeline on them
	$(BIN)/loraloom demo

bench: setup  ## Measure the engine's speed against its targets; DATA=, MODEL= and ONLY= choose what on
	$(BIN)/python -m benchmarks.run --data "$(DATA)" --model "$(MODEL)" --only "$(ONLY)"

lint: setup  ## Lint and check formatting and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup  ## Check types
	$(BIN)/mypy

check: lint types test  ## Lint, types and tests

images:  ## Build the container images (see docs/containers.md)
	images/build.sh

clean:  ## Remove the environment and local runs
	rm -rf .venv .loraloom
