# Each target makes the environment it needs in .venv; a stamp file says what is already installed there.

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# A process for each core; a file's tests share what they fit, so they stay in one process.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --durations 15
ARGS ?=

.DEFAULT_GOAL := help
# Two installs into one environment must not run at the same time.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow bench gallery lint clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed  ## compare three models on moons and Old Faithful (3 to 5 minutes)
	$(BIN)/flowbench compare moons faithful --models cnf,planar,gaussian --time-budget 30s --name demo

test: $(VENV)/.installed-test  ## run the tests; ARGS="-k planar" chooses some
	$(PYTEST) $(ARGS)

test-slow: $(VENV)/.installed-test  ## run the tests that take minutes each
	$(PYTEST) -m slow $(ARGS) || test $$? -eq 5  # 5: none was selected

bench: $(VENV)/.installed-bench .venv-jax/.installed .venv-synthesis/.installed  ## measure against other libraries; QUICK=1 in at most 10 minutes
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(ARGS)

gallery: $(VENV)/.installed  ## make the reports in reports/gallery anew; ARGS=protein chooses one
	$(BIN)/python -m benchmarks.gallery $(ARGS)

lint: $(VENV)/.installed-dev  ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:  ## remove .venv*, caches and build output; runs/, reports/ and datasets/ stay
	rm -rf $(VENV) .venv-jax .venv-synthesis build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find cli.py flowbench tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV)/pyvenv.cfg:
	@for python in python3.11 python3; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "$$python -m venv $(VENV)"; \
	    $$python -m venv $(VENV) && exit 0; \
	    rm -rf $(VENV); \
	    echo "make: $$python could not make $(VENV); on Debian and Ubuntu install python3-venv" >&2; \
	    exit 1; \
	  fi; \
	done; \
	echo "make: flowbench needs Python 3.11 or newer as python3.11 or python3; found $$(python3 --version 2>&1)" >&2; \
	exit 1

$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/pyvenv.cfg
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt $(VENV)/pyvenv.cfg
	$(INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml constraints.txt $(VENV)/pyvenv.cfg
	$(INSTALL) --editable '.[bench]'
	@touch $@ $(VENV)/.installed

# JAX pins other versions of what torch needs too, and SDV an older pandas.
.venv-%/.installed: benchmarks/%-requirements.txt $(VENV)/pyvenv.cfg
	$(BIN)/python -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# The tests are type-checked too, against what they import.
$(VENV)/.installed-dev: pyproject.toml constraints.txt $(VENV)/pyvenv.cfg
	$(INSTALL) --editable '.[dev,test]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test
