# Two commands matter: `make demo` and `make test`. Both set up .venv first; python3.11 or newer is all they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export HF_HUB_OFFLINE := 1
export RAY_USAGE_STATS_ENABLED := 0

# Two files at once: most of the longer tests wait for processes of their own. Three are no faster on two cores.
FILES := -n 2 --dist loadfile

.PHONY: demo test test-all readers simulate check clean

demo: $(READY)
	$(BIN)/diffii demo

test: check
	$(BIN)/pytest $(FILES) -m "not slow and not cluster"

test-all: check
	$(BIN)/pytest $(FILES)

# Readers that want other versions of our packages, each in an environment of its own below .readers.
readers: $(READY)
	$(BIN)/python -m tests.readers

RUNS ?= 1000

simulate: $(READY)
	$(BIN)/python -m tests.simulation --runs $(RUNS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .readers build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)
