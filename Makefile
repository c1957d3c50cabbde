# Peergrid's few commands. Each one first makes .venv ready; nothing else needs to be installed by hand.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test test-long lint contracts clean

help:
	@echo "make demo       one simulated day of the market, with summary and report"
	@echo "make test       every test that this machine can run"
	@echo "make test-long  the same with full counts"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make contracts  compile the contracts again and compare with what is committed"
	@echo "make clean      remove .venv, caches and out/"

demo: $(READY)
	@$(BIN)/peergrid demo

test: $(READY)
	@$(BIN)/pytest -n 2 --dist loadfile

test-long: $(READY)
	@PEERGRID_TEST_LONG=1 $(BIN)/pytest -n 2 --dist loadfile --timeout 7200

lint: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

contracts:
	@contracts/compile.sh --check

clean:
	rm -rf $(VENV) out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# pip before 25.1 knows no dependency groups, so the development group is read from pyproject.toml.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "peergrid needs Python 3.11 or later")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV)"
	@$(BIN)/python -c 'import tomllib; groups = tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]; print(*groups["dev"], sep="\n")' > $(VENV)/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r $(VENV)/dev.txt -e .
	@touch $@
