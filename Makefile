# make demo    set up, then run the whole line on simulated logs into runs/demo
# make test    set up, then run all tests but the faults, two at a time
# make fast    the tests that need no Ray cluster and no browser
# make faults  the tests that kill workers, nodes and drivers, and break storage
# make lint    the linters
# make setup   the virtual environment in .venv alone

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
# What needs the same cluster or server goes to the same of two workers, and what takes longest begins first.
# Each imports all tests, which takes half as long where their bytecode is kept.
TESTS := PYTHONDONTWRITEBYTECODE= $(VENV)/bin/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: setup demo test fast faults lint
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(VENV)/bin/python -m workflows.make_logs --out runs/logs
	$(VENV)/bin/python -m workflows.pipeline --logs runs/logs --out runs/demo

test: setup
	$(TESTS) -m "not faults"

fast: setup
	$(TESTS) -m "not ray and not slow and not browser"

faults: setup
	$(TESTS) -m faults

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/basedpyright
