# dynens: every target does the set-up it needs. PYTHON names the interpreter (3.11).
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --progress-bar off

export RAY_DEDUP_LOGS ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: setup demo test lint bench bench-full lock clean
.DELETE_ON_ERROR:

setup: $(STAMP)

# torch goes first and with its own dependencies (pip may serve its CPU or its CUDA build); everything
# else is pinned in the lock and installed without resolving, because torchrec and xgboost ask for
# CUDA packages that this set-up leaves out on purpose.
$(STAMP): requirements/lock.txt pyproject.toml tools/check_setup.py
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh tools/make_venv.sh
	@echo "setup: installing torch"
	@$(PIP) torch==2.13.0 --constraint requirements/lock.txt
	@echo "setup: installing the locked packages"
	@$(PIP) --no-deps --requirement requirements/lock.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@$(BIN)/python tools/check_setup.py
	@touch $@

demo: $(STAMP)
	@$(BIN)/dynens demo $(if $(filter full,$(DEMO)),--full)

# Unit tests run two at a time, one thread each; real servers want the machine for themselves.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest tests/integration

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m benchmarks.run_all --short

bench-full: $(STAMP)
	$(BIN)/python -m benchmarks.run_all --full

# Resolve pyproject.toml again, with the overrides, for the platform this project supports.
lock:
	@PYTHON="$(PYTHON)" VENV=.cache/uv-venv sh tools/make_venv.sh
	.cache/uv-venv/bin/python -m pip install --quiet uv
	.cache/uv-venv/bin/uv pip compile pyproject.toml requirements/torch-python-deps.txt \
		--all-extras --override requirements/overrides.txt --python-version 3.11 \
		--python-platform x86_64-manylinux_2_28 --no-annotate --no-emit-index-url --upgrade \
		--custom-compile-command "make lock" --output-file requirements/lock.txt

clean:
	rm -rf $(VENV) .cache build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
