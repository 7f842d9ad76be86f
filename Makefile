# Everything runs in .venv, which is made with any Python from 3.11 on.
#
#   make demo                  see it work, on an embedded PostgreSQL
#   make demo SOURCE=postgresql://…   the same on a database of yours, reading only
#   make check                 the two-minute check: lint, types and the quick tests
#   make test                  every test, on every server that can be had here
#
# ARGS reaches the program: make test ARGS="tests/test_servers.py -k proxy". JOBS is how many
# processes share the tests: one more than there are processors, since a test often waits.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test check crash lint bench clean

# A command named python3.13 may be there and not run (a version manager's shim), so each
# is tried. ensurepip is what Debian puts into a package of its own, python3-venv.
FITS := 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	"$$name" -c $(FITS) >/dev/null 2>&1 && echo "$$name" && break; done)

PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
CONSTRAINTS := .ci/constraints.txt
TEST_EXTRAS := demo,test,kafka,mysql,avro,parquet
BENCH_EXTRAS := demo,bench
ARGS ?=
JOBS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/.demo ## the main job on an embedded PostgreSQL, or on SOURCE=postgresql://…
	@$(PY) -m cdc demo $(if $(SOURCE),--source '$(SOURCE)') $(ARGS)

test: .venv/.test ## the whole suite
	@$(PY) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

# What the two-minute check leaves out: whole workers, kills, servers that are restarted, and
# Connect as the judge.
LONG := crash capture demo runtime history connect transforms log/test_crash.py log/test_full.py \
	log/test_readers.py log/test_retention.py log/test_no_space_or_else.py sinks/test_crash.py \
	log/test_durability.py sinks/test_sql_moves.py \
	postgres/test_bad_input.py postgres/test_drop.py postgres/test_slots.py postgres/test_watch.py postgres/test_decoder_fuzz.py test_packaging.py \
	test_servers.py

check: lint ## the two-minute check: lint, types and the quick tests
	@$(PY) -m pytest -m "not slow" $(LONG:%=--ignore=tests/%) \
		--ignore-glob='tests/postgres/test_source_*' $(ARGS)

crash: .venv/.test ## 200 random kills under load; CDC_CRASH_SEED=… replays a run's choices
	@CDC_CRASH_KILLS=$${CDC_CRASH_KILLS:-200} $(PY) -m pytest -s tests/crash/test_kills.py $(ARGS)

lint: .venv/.test ## ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

bench: .venv/.bench ## the benchmarks, against Debezium (Java 17; ARGS=--no-debezium: without)
	@$(PY) -m benchmarks $(ARGS)

clean: ## remove .venv and every cache
	rm -rf .venv build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: a folder's own date changes for other reasons than ours.
.venv/.made:
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 with ensurepip found;" \
		"on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -c $(FITS) >/dev/null 2>&1 || { echo "$(PYTHON) does not run, is older than" \
		"Python 3.11 or lacks ensurepip; name another: make PYTHON=…" >&2; exit 1; }
	@echo "making .venv with $(PYTHON)"
	@$(PYTHON) -m venv --clear .venv
	@touch $@

define install
	@echo "installing cdc-engine[$(1)]"
	@$(PIP) install --constraint $(CONSTRAINTS) --editable '.[$(1)]'
	@touch $@
endef

.venv/.demo: .venv/.made pyproject.toml $(CONSTRAINTS)
	$(call install,demo)

.venv/.test: .venv/.made pyproject.toml $(CONSTRAINTS)
	$(call install,$(TEST_EXTRAS))

.venv/.bench: .venv/.made pyproject.toml $(CONSTRAINTS)
	$(call install,$(BENCH_EXTRAS))
