# Every command works on a fresh clone: it makes what it needs first.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
# Unquoted on purpose: recursive, so that `make help` makes no environment.
MAIN = $(shell $(PYTHON) tests/environments.py main | tail -n 1)

.PHONY: help setup demo test lint format bench docs images clean

help:  ## say what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup:  ## make a virtual environment per Python on this machine, below .venvs/
	@$(PYTHON) tests/environments.py

demo:  ## run the main job on real data, on the embedded control plane
	@$(PYTHON) examples/demo.py

test: setup  ## run every test that this machine can run
	@$(PYTHON) tests/run.py

lint:  ## ruff, mypy (strict), import-linter
	@bin=$$(dirname $(MAIN)) && $$bin/ruff check . && $$bin/ruff format --check . && $$bin/mypy && $$bin/lint-imports --cache-dir .venvs/import-linter

format:  ## sort imports and format
	@bin=$$(dirname $(MAIN)) && $$bin/ruff check --fix . && $$bin/ruff format .

bench:  ## measure beside the published packages; one table, and JSON in bench/results
	@$(MAIN) bench/job.py
	@$(MAIN) bench/build.py
	@$(MAIN) bench/pods.py
	@$(MAIN) bench/serve.py

images:  ## build the base images of images/matrix.json with Docker
	@$(MAIN) images/build.py

docs:  ## check that the docs' links, commands and tables hold
	@$(MAIN) -m pytest tests/docs -q

clean:  ## remove what make made in this folder; caches outside it stay
	rm -rf .venvs .pytest_cache .mypy_cache .ruff_cache .hypothesis
