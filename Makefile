# The only commands to remember. Each sets up what it needs first.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench docs migrate clean
MAKEFLAGS += --no-print-directory
# Idle threads that spin for long slow down whatever else the machine does.
export GOMP_SPINCOUNT := 10000

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A Python that can make an environment: PYTHON=/path/to/python3.12 chooses one.
FIND_PYTHON = for python in $(or $(PYTHON),python3.11 python3.12 python3); do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
		&& echo "$$python" && break; done

help:  ## what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST)

setup: $(STAMP)  ## an environment in .venv with everything, as pinned in constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || { python=$$($(FIND_PYTHON)); \
		test -n "$$python" || { echo "make: Python 3.11 or 3.12 with venv was not found on PATH; name one with PYTHON=..." >&2; exit 1; }; \
		"$$python" -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@$(BIN)/python -m compileall -q api cli migrations mr_core service worker  # every process of ours starts faster
	@touch $@

demo: setup  ## the main job on an embedded service; DATA=path.zip takes your images instead of the digits
	$(BIN)/mr demo $(if $(DATA),--data "$(DATA)")

test: setup  ## every test, on several processes; ARGS="-k name" passes arguments on, ARGS="-n 0" takes one process
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadscope $(ARGS)

check: setup  ## format, lint, types, import rule
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## speed against peers and limits
	$(BIN)/python -m benchmarks $(ARGS)

docs: setup  ## the pages in docs/methods/ from the specs
	$(BIN)/python -m docs.generate

migrate: setup  ## bring the database of MR_DATABASE_URL to this version's schema
	$(BIN)/mr migrate

clean:  ## remove the environment and what runs leave behind
	rm -rf $(VENV) demo-output .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info build dist
