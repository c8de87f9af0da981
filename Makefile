# make run     environment if missing, then the demo: synthetic world -> published recommendations
# make test    environment if missing, then every test
# make quick   environment if missing, then the tests that need no Ray and no patience: under a minute on two cores
# make check   formatting, lint, types, spelling, then every test
# make soak    the batch job killed again and again must lose and double nothing; the service under load for 10 minutes
# make newest  the quick tests on the newest versions that pyproject.toml allows, in .venv-newest (a few GB)
# make bench   the benchmarks, one after the other, each ending with one JSON line
# make docs    the documentation as a site in build/site; a warning is an error
# make clean   remove the environments, caches and runs
#
# Needs Python 3.11 or newer, make and a package index. Another interpreter: make PYTHON=/path/to/python run

VENV := .venv
BIN = $(VENV)/bin
CONFIG ?= configs/demo.yaml
BENCHMARKS ?= batch_topn memory als embed
PYTHON ?=
# Two processes, each with whole files and a Ray of its own: a test with a Ray waits more than it works.
PARALLEL := -n 2 --dist loadfile
# What is left out is not even imported.
QUICK := $(PARALLEL) -m "not ray and not slow and not browser" --ignore=tests/cluster --ignore=tests/serving/test_fuzz.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test quick lint check soak newest bench docs clean

help:
	@sed -n '/^# make/s/^# //p' Makefile

run: $(VENV)/.installed-run
	$(BIN)/recsys-ray run $(CONFIG)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PARALLEL)

quick: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(QUICK)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell

check: lint test

soak: $(VENV)/.installed-test
	$(BIN)/python tests/soak.py
	$(BIN)/python -m tests.serving_soak

newest: VENV = .venv-newest
newest:
	@$(create_environment)
	$(BIN)/python -m pip install --quiet -e ".[test]"
	$(BIN)/python -m pytest $(QUICK)

bench: $(VENV)/.installed-benchmarks
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py || exit 1; done

docs: $(VENV)/.installed-docs
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) .venv-newest runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find recsys_ray jobs tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment, five stamps: each adds the extras its target needs. A change of the requirements reinstalls.
$(VENV)/.installed-run: EXTRAS := s3,embeddings,report
$(VENV)/.installed-test: EXTRAS := test
$(VENV)/.installed-dev: EXTRAS := test,dev
$(VENV)/.installed-benchmarks: EXTRAS := s3,embeddings,benchmarks
$(VENV)/.installed-docs: EXTRAS := docs

$(VENV)/.installed-%: pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { $(create_environment); }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

define create_environment
for python in $(PYTHON) python3.11 python3 python; do \
  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
    echo "Creating $(VENV) with $$python; the first install downloads a few GB."; \
    "$$python" -m venv --clear $(VENV) && exit 0; \
    echo "$$python can't create environments: install its venv module (on Debian: python3-venv)." >&2; exit 1; \
  fi; \
done; \
echo "Python 3.11 or newer not found: install it, or name one with make PYTHON=/path/to/python." >&2; exit 1
endef
