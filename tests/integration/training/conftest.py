"""One Ray for the tests of this folder."""

from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="package", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
