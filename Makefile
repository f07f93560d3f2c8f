# Each command sets itself up: a virtual environment in .venv, installed from setup.py at the versions in constraints.txt.
#   make demo JAX=cuda12      on a GPU (cuda12 or cuda13); the choice is kept until another is made
#   make test PYTHON=python3.12

PYTHON ?= python3
# Few enough that each process has a core and memory; a test's own compilations use what is left.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo 4 || echo $$n)

# A stamp is good for this place, this flavour of JAX, this Python and these requirements, by content and not by time;
# so a copied, moved, half-made or outdated .venv is mended.
WORKING := $(shell .venv/bin/python -c "" 2>/dev/null && echo yes)
KEPT := $(if $(WORKING),$(firstword $(subst -, ,$(patsubst .venv/.vcinr-%,%,$(wildcard .venv/.vcinr-*)))))
JAX ?= $(or $(KEPT),cpu)
VERSION := $(shell $(PYTHON) -c "import sys; print('%d.%d' % sys.version_info[:2])" 2>/dev/null)
STATE := $(shell (echo "$(CURDIR) $(VERSION)"; cat setup.py constraints.txt) | cksum | tr -d ' ')
STAMP := .venv/.vcinr-$(JAX)-$(STATE)
DOCS_STAMP := .venv/.docs-$(STATE)
COMMA := ,
EXTRAS := $(if $(filter cpu,$(JAX)),test,test$(COMMA)$(JAX))
PYTEST := .venv/bin/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: help setup demo test test-slow mutants lint bench results docs

help:
	@echo "make demo       train a small VC-INR, write files, read them back, draw rate against quality (minutes)"
	@echo "make test       lint and the quick tests"
	@echo "make test-slow  the slow tests"
	@echo "make mutants    break the mathematics in small ways, one at a time, and see that a test fails each time (half an hour)"
	@echo "make lint       ruff and the map of who may import whom"
	@echo "make bench      speed, memory and rate overhead, as ratios"
	@echo "make results    docs/results.md and the README's table from the measured points"
	@echo "make docs       the documentation site in out/site; fails on a broken link or reference"
	@echo "make setup      only the virtual environment in .venv; JAX=cpu, cuda12 or cuda13 (now: $(JAX))"

setup: $(if $(and $(WORKING),$(wildcard $(STAMP))),,install)

.PHONY: install
install:
	@case "$(JAX)" in cpu|cuda12|cuda13) ;; *) echo "JAX=$(JAX) is unknown; valid: cpu, cuda12, cuda13" >&2; exit 1;; esac
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || { \
	  echo "vcinr needs Python 3.11 or newer; '$(PYTHON)' is $(if $(VERSION),Python $(VERSION),not a working Python)." \
	       "Name another: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@if [ "$(or $(KEPT),$(JAX))" != "$(JAX)" ] || ! grep -qsF "$(CURDIR)/.venv/" .venv/bin/pip \
	    || ! .venv/bin/python -c "import sys, pip; sys.exit('%d.%d' % sys.version_info[:2] != '$(VERSION)')" 2>/dev/null; then \
	  echo "setup: making .venv with Python $(VERSION)"; $(PYTHON) -m venv --clear .venv; fi
	@rm -f .venv/.vcinr-*
	@echo "setup: installing vcinr and what it needs into .venv (JAX for $(JAX); a few minutes the first time)"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $(STAMP)
	@echo "setup: done"

demo: setup
	.venv/bin/python -m experiments.demo

lint: setup
	.venv/bin/python -m ruff check .
	.venv/bin/lint-imports --no-logo

test: lint
	$(PYTEST) -m "not slow"

test-slow: setup
	$(PYTEST) -m slow

mutants: setup
	.venv/bin/python -m tests.mutants

bench: setup
	.venv/bin/python -m benchmarks

results: setup
	.venv/bin/python -m experiments.results
	.venv/bin/python -m experiments.readme

docs: setup
	@test -e $(DOCS_STAMP) || { rm -f .venv/.docs-*; echo "docs: installing MkDocs into .venv"; \
	  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]" && touch $(DOCS_STAMP); }
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict
	@echo "docs: out/site/index.html; with search: .venv/bin/python -m http.server -d out/site"
