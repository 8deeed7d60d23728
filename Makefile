# Everything starts from here: `make run` trains the quickstart, `make test` runs the fast suite.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CODE := src quickstart templates tests benchmarks scripts deploy README.md  # other apps may lie beside these
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Many tests wait for processes that they started. A module's tests stay together, in their order.
PARALLEL ?= --numprocesses 2 --dist loadscope --no-loadscope-reorder

.PHONY: run test check docs slow coverage bench clean

run: $(VENV)/.run-ready  ## train the quickstart
	$(BIN)/waggle run quickstart

test: $(VENV)/.test-ready check docs  ## check the code and the documentation, then run the fast suite
	$(BIN)/python -m pytest $(PARALLEL)

coverage: $(VENV)/.test-ready  ## the fast suite with the lines that it runs; an eighth slower
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term --cov-fail-under=85

slow: $(VENV)/.test-ready  ## run what takes minutes
	$(BIN)/python -m pytest -m slow --timeout 1800

bench: $(VENV)/.test-ready  ## measure the engine beside others; it wants a quiet machine
	$(BIN)/python benchmarks/bench_engine.py

check: $(VENV)/.test-ready  ## style, types and the direction of imports
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy src quickstart
	PYTHONPATH=quickstart $(BIN)/lint-imports --no-cache

docs: $(VENV)/.test-ready  ## build the documentation into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:  ## remove the environment and caches
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run-ready: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV) (once; a few minutes) ..."
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.test-ready: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV) with the test tools (once; a few minutes) ..."
	$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.run-ready
