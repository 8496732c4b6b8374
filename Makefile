# Two commands do everything: `make quickstart` and `make test`. Both reuse the virtual environment they find.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

.PHONY: help quickstart test test-fault test-sweep coverage wheel-test benchmarks docs clean

help:
	@echo "make quickstart   install, then distil the digits: runs/quickstart/summary.md"
	@echo "make test         install, then ruff, mypy and the tests; none needs a GPU"
	@echo "make test-fault   inject faults into every stage of a run, within 30 minutes: docs/reliability.md"
	@echo "make test-sweep   fail each system call of each stage, within 90 minutes; what has passed is not repeated"
	@echo "make coverage     the tests again, and which lines they run: 90 % of all, every one of floor 0"
	@echo "make wheel-test   build wheel and sdist, install the wheel elsewhere, run the quickstart there at a tiny size"
	@echo "make benchmarks   measure beside plain references on a quiet machine: docs/benchmarks.md"
	@echo "make docs         install, then the documentation: site/index.html"
	@echo "make clean        remove the environment and what was built"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# What the quickstart needs; what the tests need, Ray among it, takes longer to install.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) .
	touch $(STAMP)

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) '.[dev]'
	touch $(STAMP) $(DEV)

quickstart: $(STAMP)
	$(BIN)/dgs run quickstart

test: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fault: $(DEV)
	$(BIN)/pytest -m fault -n 2

test-sweep: $(DEV)
	$(BIN)/pytest -m sweep -n 2 --dist loadgroup --verbose

coverage: $(DEV)
	$(BIN)/coverage erase
	$(BIN)/pytest -n 2 --dist loadfile --cov --cov-report=term
	rm -f .coverage.*  # half-written, by processes that tests killed
	$(BIN)/coverage report --include='*/diffusion/*,*/matching/*,*/selection/*' --fail-under=100

wheel-test: $(DEV)
	$(BIN)/pytest tests/test_wheel.py

benchmarks: $(DEV)
	$(BIN)/python benchmarks/run_all.py

docs: $(DEV)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site
