# Each target sets itself up: a fresh clone needs nothing but Python 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
SEED ?= 0

export FLWR_TELEMETRY_ENABLED := 0
export OMP_NUM_THREADS := 1

.PHONY: install simulate browser test test-all lint format bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

simulate: install  ## the digits of 1,232 real writers at epsilon 1, on Ray
	$(BIN)/python -m simulations.run --config simulations/configs/writers.toml --set seed=$(SEED)

browser:  ## Chromium, in which the tests open a run's report; root on Debian installs it, others are told
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	    { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	      apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	    echo "no chromium and none could be installed: the test of report.html in a browser is skipped"

test: install browser  ## everything but the slow ones: 12 minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: install browser  ## slow ones included
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## what hosting simulated clients costs beside arithmetic and noise
	$(BIN)/python -m benchmarks.hosts

clean:
	rm -rf $(VENV)
