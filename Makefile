# `make report` runs the whole report, `make check` what CI runs. Everything runs in .venv, made on first use.

PYTHON ?= python3
PRESET ?= quick
# more arguments for `make report`, `make bench` and `make bench-self`
ARGS ?=
# processes of `make test` and `make nbval`: a file's tests stay together, so that what they share is made once
PROCESSES ?= 2
# which tests `make test` runs: `make check` runs them all
TESTS ?= -m "not long"
# more arguments for pip, such as another package index
PIP_ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
FETCHED := $(VENV)/.fetched

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help setup report smoke explore lab test browser nbval lint check peers interop soak inputs architectures audit readme picture site bench bench-self bench-scaling bench-workers clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1: /p' Makefile

setup: $(FETCHED) ## make .venv, install what constraints.txt pins, fetch the embedded model and text

report: $(FETCHED) ## run the seven notebooks: PRESET=quick, more with ARGS="--set delta=0.5"
	$(PY) -m archsae_study report --preset $(PRESET) $(ARGS)

smoke: $(INSTALLED) ## the same on a model and a text made on the spot: no network, seconds a notebook
	$(PY) -m archsae_study report --preset smoke $(ARGS)

explore: $(FETCHED) ## a page of every feature of a run: PRESET=quick, more with ARGS="--set delta=0.5"
	$(PY) -m archsae_study explore --preset $(PRESET) $(ARGS)

lab: $(FETCHED) ## open the notebooks in JupyterLab
	$(PY) -m jupyterlab notebooks

test: $(FETCHED) ## unit tests, then the committed notebooks; all tests with TESTS=
	$(PY) -m pytest $(TESTS) -n $(PROCESSES) --dist loadfile --no-loadscope-reorder --durations 15
	$(MAKE) nbval

browser: $(INSTALLED) ## click through the pages in the system's Chromium; `test` passes over them where there is none
	ARCHSAE_REQUIRE_BROWSER=1 $(PY) -m pytest -m browser

nbval: $(FETCHED) ## re-run the committed notebooks from results/ and compare every output
	ARCHSAE_RESULTS_ONLY=1 $(PY) -m pytest --nbval notebooks -n $(PROCESSES) --dist loadfile

lint: $(INSTALLED) ## ruff over modules and notebooks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# The README's tables are compared by tests/test_project.py, so `test` covers them.
check: lint ## lint, every test, the committed notebooks; CI runs this
	$(MAKE) test TESTS=

peers: $(INSTALLED) ## environments of SAELens and of neuronpedia, for the tests that need them: minutes and 2 GB
	$(PY) tests/peers.py

interop: peers ## exports opened by other tools, each in its own environment; `test` passes over them where there is none
	$(PY) -m pytest -rs tests/interop

soak: $(FETCHED) ## kill, fill, damage and starve runs on purpose: hours; one part with ARGS=kills, briefly with ARGS="--short kills"
	$(PY) -m soak $(ARGS)

inputs: $(INSTALLED) ## every bad input of the tests and the error it gets
	$(PY) tests/bad_inputs.py

architectures: $(INSTALLED) ## try a tiny model of every decoder family; rewrites docs/models.md: minutes
	$(PY) -m tests.architectures

audit: $(INSTALLED) ## known vulnerabilities of what is installed, from PyPI's advisories
	$(PY) -m pip install --quiet $(PIP_ARGS) pip-audit
	@# +cpu is a build of a release, not a release that advisories name
	$(PY) -m pip list --format=freeze --exclude-editable | sed 's/+.*//' > $(VENV)/audited.txt
	$(PY) -m pip_audit --requirement $(VENV)/audited.txt --no-deps --disable-pip --strict

readme: $(INSTALLED) ## rewrite the generated tables of README.md and docs
	$(PY) -m docs.pages

picture: $(INSTALLED) ## the README's picture of the explorer, from a page of `make explore`: PAGE=runs/…/index.html
	$(PY) -m docs.picture $(PAGE)

site: $(INSTALLED) ## the report as a web site in runs/site; with an explorer: ARGS="--explorer FOLDER"
	$(PY) -m docs.site $(ARGS)

bench: $(FETCHED) ## speed against other packages, each in its own environment: half an hour
	$(PY) -m benchmarks $(ARGS)
	$(PY) -m benchmarks.kmeans
	$(PY) -m benchmarks.matching
	$(PY) -m benchmarks.extraction
	$(PY) -m benchmarks.evaluation
	$(MAKE) readme

bench-self: $(FETCHED) ## speed of this package's own steps
	$(PY) -m benchmarks --self $(ARGS)

bench-scaling: $(FETCHED) ## time and memory against every size; continues where it stopped: a quarter of an hour
	$(PY) -m benchmarks.scaling $(ARGS)
	$(MAKE) readme

bench-workers: $(INSTALLED) ## a sweep on 1, 2 and 4 processes, and what more would do
	$(PY) -m benchmarks.scaling_workers $(ARGS)
	$(MAKE) readme

clean: ## remove what tools leave behind; .venv and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .ipynb_checkpoints notebooks/.ipynb_checkpoints
	find archsae_core archsae_study tests benchmarks soak -name __pycache__ -exec rm -rf {} + 2>/dev/null || true

define make_venv
command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$($(PYTHON) --version): Python 3.11 or newer is needed, name one: make PYTHON=python3.12" >&2; exit 1; }; \
$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) has no venv: install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }; \
$(PYTHON) -m venv --clear $(VENV)
endef

# A stamp is touched last, so that an interrupted installation is taken up again.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PY) -m pip --version >/dev/null 2>&1 || { $(make_venv); }
	@echo "installing into $(VENV): minutes on the first run"
	@# modules are compiled when they are first imported: all of them at once would take a third of the time
	$(PY) -m pip install --quiet --no-compile $(PIP_ARGS) -c constraints.txt -e '.[report,dev,cluster,site]'
	$(PY) -m ipykernel install --sys-prefix --name archsae --display-name archsae
	@touch $@

$(FETCHED): archsae_core/data/assets.py | $(INSTALLED)
	$(PY) -m archsae_study fetch
	@touch $@
