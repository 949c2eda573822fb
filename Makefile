# `make`, git and python3 (3.11 or newer) are all that must be there; the rest goes into .venv.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# The sample run draws fewer images than params.yaml, so that it is over in minutes on two cores.
SAMPLE_IMAGES ?= 500
# A machine without a git identity can still record an experiment.
export GIT_AUTHOR_NAME ?= $(or $(shell git config user.name),adaptive-vit)
export GIT_AUTHOR_EMAIL ?= $(or $(shell git config user.email),adaptive-vit@localhost)
export GIT_COMMITTER_NAME ?= $(GIT_AUTHOR_NAME)
export GIT_COMMITTER_EMAIL ?= $(GIT_AUTHOR_EMAIL)

.PHONY: help setup run test check bench sweep format lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: .venv/installed  ## create .venv from requirements.lock

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "adaptive-vit needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: setup  ## run the whole pipeline, offline, on the built-in sample (DVC experiment `sample`)
	@$(BIN)/dvc exp remove --quiet sample 2>/dev/null || true
	$(BIN)/dvc exp run --name sample -S data.source=sample \
		-S data.calibration_images=$(SAMPLE_IMAGES) -S data.evaluation_images=$(SAMPLE_IMAGES)
	@echo
	@$(BIN)/adaptive-vit results
	@echo
	@echo "Report: data/report.html (open it in a browser)"
	@echo
	@echo "Next, after: source .venv/bin/activate"
	@echo "  git restore params.yaml dvc.lock metrics models   # put the committed results back"
	@echo "  dvc repro                                         # the same on Tiny ImageNet (downloads 248 MB)"
	@echo "  dvc exp run -S fit.threshold.value=0.3            # another threshold: fit, replay and report only"
	@echo "  dvc exp show                                      # compare experiments"

test: setup  ## run all tests
	$(BIN)/python -m pytest

check: setup  ## formatting, lint, strict types, walls between modules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_walls.py

bench: setup  ## the usual way, every engine and extraction side by side: benchmarks/results/
	$(BIN)/python -m benchmarks --readme README.md

# What is varied, as dvc exp run takes it; a second -S multiplies, `-S replay.images=400` shortens each run.
SWEEP ?= -S fit.threshold.value=0.05,0.1,0.2,0.3

sweep: setup  ## queue thresholds or proxies (SWEEP="-S fit.proxy=margin,learned"), run and compare them
	@$(BIN)/dvc queue remove --quiet --failed  # Those of an earlier sweep.
	$(BIN)/dvc exp run --queue --quiet $(SWEEP)
	PATH="$(CURDIR)/$(BIN):$$PATH" dvc exp run --run-all  # DVC's worker looks for dvc on the PATH.
	COLUMNS=220 $(BIN)/dvc exp show --no-pager --drop '.*' --keep 'Experiment|State' --keep 'fit.(proxy|threshold.value)' \
		--keep '.*single_stream.adaptive.(escalation_rate|agreement|accuracy|latency_ms.mean)'
	@! $(BIN)/dvc queue status | grep Failed || \
		{ echo "An experiment failed, see above; dvc queue logs <task> says why."; exit 1; }

format: setup  ## rewrite files in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:  ## pin the newest versions that pyproject.toml allows (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --upgrade --output-file requirements.lock

clean:  ## remove .venv and the tools' caches; results, .cache and DVC's cache stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info
