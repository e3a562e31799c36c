"""Every benchmark starts, also those that no other test needs."""

import importlib
from pathlib import Path

import pytest

import benchmarks

# Installed in environments of their own.
_PEERS = {"fuxictr", "litserve", "mosec", "recbole"}
_MODULES = sorted(p.stem for p in Path(benchmarks.__path__[0]).glob("[!_]*.py"))


@pytest.mark.parametrize("module", _MODULES)
def test_it_can_be_imported(module: str) -> None:
    try:
        importlib.import_module(f"benchmarks.{module}")
    except ModuleNotFoundError as e:
        if e.name not in _PEERS:
            raise
        pytest.skip(f"needs {e.name}")
