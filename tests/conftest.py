"""Markers follow the path: tests/unit is `unit`, tests/integration is `integration`."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parts = Path(str(item.fspath)).parts
        for marker in ("unit", "integration"):
            if marker in parts:
                item.add_marker(marker)
