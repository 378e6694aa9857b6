# Everything starts here: `make demo` shows the main job, `make test` proves it.
SHELL := /bin/bash
UV_VERSION := 0.13.9
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# pip and git trust the machine's certificates, a company's proxy among them; so must uv.
export UV_SYSTEM_CERTS ?= 1
# The demo and the tests start many programs: what one has compiled, the next starts with in half the time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo picture test mutation lint ui bench lock setup clean help

help: ## the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

setup: $(READY) ## virtual environment with everything that requirements.lock pins

# What an interrupted installation left is removed: half a package passes for a whole one.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(if $(wildcard $@),,--clear) .venv
	rm -f $@
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

demo: $(READY) ## back up, lose and recover a PostgreSQL server, through Dagster, in under 3 minutes
	$(BIN)/python -m dr_pipelines.embedded demo

picture: $(READY) ## run the demo, and its ending becomes the README's picture
	$(BIN)/python -m dr_pipelines.embedded demo --svg docs/pictures/demo.svg

ui: $(READY) ## Dagster's UI on what the demo left
	$(BIN)/python -m dr_pipelines.embedded ui

# A file's tests stay together, as they share servers; files go out in their order, which has the quick ones at its end.
test: $(READY) ## the whole test suite, on up to 4 processors
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

mutation: $(READY) ## damage repositories and restored copies in hundreds of ways: is every one noticed?
	$(BIN)/python -m tests.mutation $(MUTATION)

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## speed and memory beside pg_basebackup, pgBackRest, rclone, restic and borg; a million objects; what proving costs
	$(BIN)/python -m benchmarks.database
	$(BIN)/python -m benchmarks.replication
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.validation
	$(BIN)/python -m benchmarks.files
	$(BIN)/python -m benchmarks.files --files 200000 --rounds 1

lock: $(READY) ## resolve pyproject.toml anew into requirements.lock
	$(BIN)/uv pip compile --quiet pyproject.toml --all-extras --group dev --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header --no-emit-index-url --no-emit-find-links --output-file requirements.lock

clean: ## remove the demo's state and the virtual environment
	test ! -x $(BIN)/python || $(BIN)/python -m dr_pipelines.embedded clean
	rm -rf .venv .demo .bench
