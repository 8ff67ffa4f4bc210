PYTHON ?= python3
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PYTHONS := 3.11 3.12 3.13
LOWEST := .venv-lowest
# "name>=1.2,<2" of the library and its extras as "name==1.2"
DECLARED := import re, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
  print(*(re.sub(">=([^,;]*).*", "==\\1", r) for e in (p["dependencies"], *map(p["optional-dependencies"].get, ("detection", "dev"))) for r in e), sep="\n")
# A change of what is declared or of the installer gives another name, so `make` installs again; otherwise it installs nothing.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt automix_transfer/commands/install_detectron2.py | cksum | cut -d' ' -f1)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-wheel test-pythons test-lowest lint docs clean

help:  ## show these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv and install everything into it, Detectron2 included

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, %s is %s; make PYTHON=python3.11" % (sys.executable, sys.version.split()[0]) if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
# torch and torchvision in one command: two builds that do not match fail at import.
	$(BIN)/python -m pip install --disable-pip-version-check torch torchvision -e '.[dev,detection,docs,onnx,wandb]' -c constraints.txt
	$(BIN)/automix-transfer install-detectron2
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(STAMP)  ## run the whole chain on embedded data: runs/demo/report.html
	$(BIN)/automix-transfer demo --output runs/demo

test: $(STAMP)  ## run the quick tests, before every commit; ARGS=... is passed to pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) -m "not slow" --durations=15 $(ARGS)

test-slow: $(STAMP)  ## run the others: processes, every recipe, long trainings
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) -m "slow and not wheel" --durations=15 $(ARGS)

test-wheel: $(STAMP)  ## build wheel and source archive, install the wheel elsewhere, run the demo and every command
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m wheel --durations=5 tests/test_wheel.py $(ARGS)

# Each but that of .venv gets an environment of its own (some 6 GB); date the result in docs/versions.md.
test-pythons:  ## run the quick tests on each Python from 3.11 to 3.13 that is installed here
	@for version in $(PYTHONS); do \
	  if $(BIN)/python -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$$version')" 2>/dev/null; then venv=$(VENV); \
	  elif python$$version -c 'import ensurepip' 2>/dev/null; then venv=.venv-$$version; \
	  else echo "Python $$version is not installed here (python$$version does not run): passed over"; continue; fi; \
	  echo "Python $$version in $$venv"; \
	  $(MAKE) --no-print-directory test PYTHON=python$$version VENV=$$venv || exit 1; \
	done

# Not part of CI, for it installs some 6 GB: run it when a bound of pyproject.toml changes, and date the result in docs/versions.md.
test-lowest:  ## run the quick tests on the lowest versions that pyproject.toml declares, in .venv-lowest
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(PYTHON) -c '$(DECLARED)' > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check wheel -r $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check --no-deps -e .
	$(LOWEST)/bin/python -m automix_transfer install-detectron2 --force  # alone: its dependencies are there
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -q -n $(JOBS) -m "not slow" \
	  --deselect tests/test_install.py::test_versions_that_detectron2_needs_are_installed $(ARGS)

lint: $(STAMP)  ## ruff (rules and format) on everything, mypy on the library
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy automix_transfer

docs: $(STAMP)  ## build the documentation, strictly: docs/_build/html/index.html
	$(BIN)/python docs/pages.py docs/_build/source
	$(BIN)/python -m sphinx -W --keep-going -n -q -c docs docs/_build/source docs/_build/html

clean:  ## remove .venv, runs, rendered data sets and caches
	rm -rf $(VENV) .venv-* docs/_build runs datasets build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
