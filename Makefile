# Everything runs in a virtual environment that the first target to need it creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs

.PHONY: demo test check bench docs

# Continues or reports the study in runs/digits if there is one. So small a network trains as fast on one
# thread, and several threads wait for each other where the host is busy.
demo: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/autocompress search examples/digits.yaml --study-dir runs/digits

# One process per core, each with one thread; modules are not split, since their tests share searches.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadscope

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	set -e; for benchmark in examples/benchmarks/*.py examples/benchmarks/evidence/run.py; do $(BIN)/python $$benchmark --smoke; done

docs: $(DOCS_STAMP)
	$(BIN)/mkdocs build --strict

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[docs]"
	touch $@
