"""One toy run for all tests of serving, and the folders of a server."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynens.config.serving import ServingConfig
from dynens.engine import Engine
from serving.application import Application
from serving.environment import Runtime, create_runtime
from serving.metrics import SnapshotFolder
from tests.bundles import toy_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_run(tmp_path_factory.mktemp("toy") / "run", hidden=(32,))


@pytest.fixture(scope="session")
def engine(run: Path) -> Engine:
    return Engine.load(run)


@pytest.fixture
def app(engine: Engine) -> Application:
    config = ServingConfig(latency_budget_ms=10_000)
    return Application(engine, config, folder=SnapshotFolder(None, "one"))


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    created = create_runtime()
    yield created
    shutil.rmtree(created.directory)
