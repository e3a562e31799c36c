"""One toy run and one long-lived server for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles import toy_run
from tests.server_process import ServerProcess, server


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_run(tmp_path_factory.mktemp("toy") / "run")


@pytest.fixture(scope="session")
def shared_server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Two replicas; a budget long enough for a busy machine."""
    log = tmp_path_factory.mktemp("server") / "log"
    with server(run, log, replicas=2, latency_budget_ms=2000) as up:
        yield up
