# Everything from a fresh checkout, with Python (3.11 or newer), pip and make:
#   make test   style, types, the built wheel, then the whole test suite (nothing is fetched by the tests themselves)
#   make demo   the demonstration with the small checkpoints that lie in the repository
#   make docs   the documentation as a site, in build/site
#   make results   every protocol with the shipped checkpoints, where its data are there, and the tables of the docs
#   make test-newest, make test-oldest   the newest requirements that pip finds today, and the oldest that setup.cfg allows
# The environment is made once in .venv and again only when setup.cfg, pyproject.toml or constraints.txt change.

VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
CONSTRAINTS ?= constraints.txt
# The first Python on the path that transformers accepts; `make PYTHON=...` chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
WORKERS ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# No target but `venv` and the isolated build needs the network.
OFFLINE := HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

.NOTPARALLEL:
.PHONY: help venv lint format types unit wheel test test-newest test-oldest resolve docs demo results clean distclean

help:
	@sed -n '1,8s/^# //p' Makefile
	@echo 'Also: venv lint format types wheel unit resolve clean distclean'

venv: $(STAMP)

# A half-made environment leaves no stamp and is simply completed by the next run.
$(STAMP): setup.cfg pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo 'hf_mobility needs Python 3.11 or newer: install it or say make PYTHON=/path/to/python3.11' >&2; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -c $(CONSTRAINTS) -e '.[test,dev,demo,docs]'
	@touch $@

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: $(STAMP)
	$(PY) tools/check_types.py

# Build the sdist, the wheel from the sdist, and try the wheel in an environment that has no checkout.
wheel: $(STAMP)
	$(OFFLINE) $(PY) tools/check_wheel.py

# One thread in each process: the workers already use the cores.
unit: $(STAMP)
	OMP_NUM_THREADS=1 $(OFFLINE) $(PY) -m pytest -n $(WORKERS) $(PYTEST_ARGS)

# The suite comes last so that its summary is the last thing to be seen.
test: lint types wheel unit

# The wheel in a fresh environment without constraints; `TRY=--short` lays the newest transformers, peft and
# huggingface_hub over .venv instead.
test-newest: $(STAMP)
	$(PY) tools/check_newest.py $(TRY)

# The suite with constraints-oldest.txt, in an environment of its own.
test-oldest:
	$(MAKE) unit VENV=$(VENV)-oldest CONSTRAINTS=constraints-oldest.txt

# Whether pip finds versions for the package and, each apart, for libraries that are used beside it; it needs the network.
resolve: $(STAMP)
	$(PY) tools/check_resolution.py

# A broken link or an API name that does not exist ends it. The notice of MkDocs' makers about its next version is left out.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(OFFLINE) $(PY) -m mkdocs build --strict --quiet
	@echo 'build/site/index.html'

demo: $(STAMP)
	$(OFFLINE) $(PY) examples/demo.py

# What is saved for the same protocol, data and model is not made again. HF_MOBILITY_DATA names the folder of the data.
results: $(STAMP)
	$(OFFLINE) $(PY) -m benchmarks.protocols.rank
	$(OFFLINE) $(PY) -m benchmarks.protocols.publish
	$(OFFLINE) $(PY) -m benchmarks.fill_results

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find hf_mobility modeling tokenization tests examples benchmarks tools -name __pycache__ -type d -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV) $(VENV)-oldest
