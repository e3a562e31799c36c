"""A Ray that is not there, which is one sentence with a remedy, and the end of its tasks."""

import socket

import pytest
import ray

from dynens.config.run import RayConfig
from dynens.errors import TrainingError
from training.cluster import cancel_running, cluster


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


def test_only_tasks_that_still_run_are_ended_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, forced = {"b"}, []

    def wait(tasks: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        assert (num_returns, timeout) == (len(tasks), 0)
        return [t for t in tasks if t in ended], [t for t in tasks if t not in ended]

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "cancel", lambda task, force: forced.append((task, force)))
    cancel_running(dict.fromkeys("abc"))
    assert forced == [("a", True), ("c", True)]
