# Every target makes the virtual environment it needs and uses it again until setup.cfg or pyproject.toml changes.
#   make demo    the demonstration: fits on real and generated data beside scikit-learn, writes an HTML report
#   make test    the tests, with a fiftieth of the slow ones, chosen by the commit
#   make test-all, lint, bench, docs, clean

PYTHON ?= python3
SLOW_SHARE ?= 0.02
commit = $(shell git rev-parse --short HEAD 2>/dev/null)

.PHONY: demo test test-all lint bench docs clean
.DEFAULT_GOAL := test

demo: .venv-demo/ready
	.venv-demo/bin/daskdml demo

test test-all: export NUMBA_CACHE_DIR = $(CURDIR)/.cache/numba/$(shell sh ci/source_hash)

test: .venv-test/ready
	.venv-test/bin/pytest --slow-share=$(SLOW_SHARE) --slow-seed=$(commit)

test-all: .venv-test/ready
	.venv-test/bin/pytest

lint: .venv-test/ready
	.venv-test/bin/ruff check .

bench: .venv-bench/ready
	.venv-bench/bin/python -m benchmarks

docs: .venv-docs/ready
	.venv-docs/bin/python -m sphinx -q -W --keep-going docs docs/_build/html
	@echo "docs/_build/html/index.html"

# The name after .venv- is the extra of setup.cfg that is installed; demo needs none.
extra_demo =
extra_test = [test]
extra_bench = [bench]
extra_docs = [docs]

.venv-%/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.$(extra_$*)'
	@touch $@

clean:
	rm -rf .venv-demo .venv-test .venv-bench .venv-docs .cache build dist docs/_build
