"""A Ray that is not there: one sentence with a remedy."""

import socket

import pytest

from dynens.config.run import RayConfig
from dynens.errors import TrainingError
from training.cluster import cluster


def test_a_cluster_that_does_not_answer_is_told_at_once() -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        told = rf"Ray at {address} cannot be reached \(.*refused\); correct ray.address, or leave"
        with pytest.raises(TrainingError, match=told), cluster(RayConfig(address=address)):
            pass


@pytest.mark.parametrize(("folder", "why"), [("file", "Not a directory"), ("x" * 120, "AF_UNIX")])
def test_a_folder_that_ray_cannot_use_is_told_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path, folder: str, why: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / folder))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # of another cluster than the run's own
    told = rf"Ray did not start \(.*{why}.*\); see that its folder .* or name another one"
    with pytest.raises(TrainingError, match=told) as caught, cluster(RayConfig(num_cpus=1)):
        pass
    assert "\n" not in str(caught.value)
