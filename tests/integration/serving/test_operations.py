"""Starting, stopping, swapping, killing."""

import http.client
import json
import re
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from dynens.bundle import load_bundle
from dynens.errors import BadInputError, BundleError
from serving.control import send_command
from serving.environment import free_port
from serving.server import serve
from tests.bundles import toy_run, write_toy_bundle
from tests.server_process import ServerProcess, get, server

BODY = json.dumps({"user_id": 3, "candidates": ["i1", "i2", "i3"]}).encode()


class Client(threading.Thread):
    """Sends one request after the other and counts what comes back."""

    def __init__(self, port: int, budget_ms: int, pause_s: float) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.headers = {"x-latency-budget-ms": str(budget_ms)}
        self.pause_s = pause_s
        self.statuses: Counter[int] = Counter()
        self.versions: list[str] = []
        self.slowest_s = 0.0
        self.halt = threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.halt.is_set():
            sent = time.monotonic()
            try:
                connection.request("POST", "/v1/rank", BODY, self.headers)
                answer = connection.getresponse()
                document = json.loads(answer.read())
                self.statuses[answer.status] += 1
                version = document.get("bundle_version")
                if version and version not in self.versions[-1:]:
                    self.versions.append(version)
            except (OSError, http.client.HTTPException):
                self.statuses[0] += 1
                connection.close()
            self.slowest_s = max(self.slowest_s, time.monotonic() - sent)
            time.sleep(self.pause_s)
        connection.close()


@contextmanager
def clients(
    port: int, count: int = 4, budget_ms: int = 60_000, pause_s: float = 0.002
) -> Iterator[list[Client]]:
    threads = [Client(port, budget_ms, pause_s) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.halt.set()
        for thread in threads:
            thread.join(timeout=60)


def total(threads: list[Client]) -> Counter[int]:
    return sum((t.statuses for t in threads), Counter())


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_run(tmp_path_factory.mktemp("toy") / "run", hidden=(64,))


@pytest.fixture(scope="module")
def two_replicas(
    own_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("server") / "log"
    with server(own_run, log, replicas=2, latency_budget_ms=5000) as up:
        yield up


def test_a_new_bundle_takes_over_under_load_and_can_be_taken_back(
    two_replicas: ServerProcess, own_run: Path, tmp_path: Path
) -> None:
    first = load_bundle(own_run).version
    other = tmp_path / "other"
    shutil.copytree(own_run, other)
    second = load_bundle(write_toy_bundle(other, seed=9, hidden=(64,))).version
    before = {p.pid for p in two_replicas.replicas()}
    with clients(two_replicas.port) as threads:
        _until_all_are_answered(threads)
        answer = send_command(two_replicas.port, {"command": "swap", "bundle": str(other)})
        assert answer == {"bundle_version": second, "previous": first}
        _until_all_are_answered(threads)
        answer = send_command(two_replicas.port, {"command": "rollback"})
        assert answer == {"bundle_version": first, "previous": second}
        _until_all_are_answered(threads)
    assert set(total(threads)) == {200}
    for thread in threads:
        assert thread.versions[0] == first
        assert thread.versions[-1] == first
        assert second in thread.versions
    assert {p.pid for p in two_replicas.replicas()} == before
    assert _swaps(two_replicas) == {"done": 4}  # in each replica, there and back


def _until_all_are_answered(threads: list[Client], more: int = 20) -> None:
    """Wait until every client has `more` answers than now."""
    wanted = [sum(thread.statuses.values()) + more for thread in threads]
    give_up = time.monotonic() + 30
    while any(sum(t.statuses.values()) < n for t, n in zip(threads, wanted, strict=True)):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def _swaps(up: ServerProcess) -> dict[str, int]:
    text = get(f"{up.url}/metrics").decode()
    found = re.findall(r'dynens_bundle_swaps_total\{outcome="(\w+)"\} (\d+)', text)
    return {outcome: int(count) for outcome, count in found}


def test_a_bad_bundle_is_refused_and_the_old_one_goes_on(
    two_replicas: ServerProcess, own_run: Path, tmp_path: Path
) -> None:
    first = load_bundle(own_run).version
    corrupt = tmp_path / "corrupt"
    shutil.copytree(own_run / "bundle", corrupt)
    data = bytearray((corrupt / "ensemble.onnx").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (corrupt / "ensemble.onnx").write_bytes(data)
    future = tmp_path / "future"
    shutil.copytree(own_run / "bundle", future)
    manifest = json.loads((future / "manifest.json").read_text())
    (future / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with clients(two_replicas.port, 2) as threads:
        for bad, words in ((corrupt, "checksum"), (future, "format 99"), (tmp_path, "neither")):
            with pytest.raises(BadInputError, match=words):
                send_command(two_replicas.port, {"command": "swap", "bundle": str(bad)})
        with pytest.raises(BadInputError, match="no command"):
            send_command(two_replicas.port, {"command": "dance"})
    assert set(total(threads)) == {200}
    assert {v for t in threads for v in t.versions} == {first}


def test_a_killed_replica_is_replaced_and_no_request_is_lost_silently(
    two_replicas: ServerProcess,
) -> None:
    victims = two_replicas.replicas()
    assert len(victims) == 2
    with clients(two_replicas.port) as threads:
        time.sleep(0.5)
        victims[0].kill()
        give_up = time.monotonic() + 60
        while True:
            alive = [p.pid for p in two_replicas.replicas()]
            if len(alive) == 2 and victims[0].pid not in alive:
                break
            assert time.monotonic() < give_up
            time.sleep(0.2)
        before = total(threads)[200]
        time.sleep(3)
        assert total(threads)[200] > before
    statuses = total(threads)
    # Those that died with the replica got HAProxy's 502 or 503, or a broken connection (0), which
    # no client takes for an answer.
    assert set(statuses) <= {200, 502, 503, 0}, statuses
    assert statuses[0] <= 2
    assert statuses[502] + statuses[503] < 0.05 * statuses[200]


def test_the_counts_of_the_killed_replica_are_kept(two_replicas: ServerProcess) -> None:
    text = get(f"{two_replicas.url}/metrics").decode()
    counted = re.search(r'dynens_requests_total\{status="200"\} (\d+)', text)
    assert counted is not None
    assert int(counted[1]) > 500


@pytest.fixture(scope="module")
def one_replica(own_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Its clients were there before it: without another replica HAProxy answers them in words."""
    port, log = free_port(), tmp_path_factory.mktemp("one") / "log"
    with (
        clients(port, 4, budget_ms=200, pause_s=0.1) as threads,
        server(own_run, log, port=port) as up,
    ):
        statuses = total(threads)
        for thread in threads:
            thread.halt.set()
        assert set(statuses) <= {0, 200, 503, 504}  # 0: nobody listens yet
        assert statuses[503] > 0
        yield up


def test_nobody_waits_for_a_replica_that_hangs(one_replica: ServerProcess) -> None:
    """Whoever sent it a request hears of it a second after the budget at the latest."""
    (only,) = one_replica.replicas()
    with clients(one_replica.port, 4, budget_ms=200, pause_s=0.1) as threads:
        only.suspend()
        time.sleep(4)
        assert total(threads)[503] + total(threads)[504] > 4
        only.resume()
        time.sleep(2)
        for thread in threads:
            thread.statuses.clear()
        time.sleep(1)
        assert set(total(threads)) == {200}
        assert max(thread.slowest_s for thread in threads) < 2.5


def test_one_replica_changes_its_bundle_within_a_short_budget(
    one_replica: ServerProcess, own_run: Path, tmp_path: Path
) -> None:
    """Nobody else could answer for it while it loads."""
    other = tmp_path / "other"
    shutil.copytree(own_run, other)
    write_toy_bundle(other, seed=9, hidden=(64,))
    (before,) = one_replica.replicas()
    with clients(one_replica.port, 1, budget_ms=200, pause_s=0.2) as threads:
        time.sleep(1)
        send_command(one_replica.port, {"command": "swap", "bundle": str(other)})
        time.sleep(1)
        send_command(one_replica.port, {"command": "rollback"})
        time.sleep(1)
    assert set(total(threads)) == {200}
    assert len(threads[0].versions) == 3
    (after,) = one_replica.replicas()
    assert after.pid == before.pid
    assert _swaps(one_replica) == {"done": 2}


def test_sigterm_drains_and_leaves_nothing(one_replica: ServerProcess) -> None:
    family = one_replica.descendants()
    folders = {Path(p).parts[2] for p in re.findall(r"/tmp/dynens-\w+", _cmdlines(family))}
    slow = _half_a_request(one_replica.port)
    time.sleep(0.3)
    stopping = threading.Thread(target=one_replica.stop)
    stopping.start()
    time.sleep(0.3)
    slow.sendall(BODY[10:])  # the rest of what was accepted before the signal
    answer = slow.recv(65536).decode()
    slow.close()
    stopping.join(timeout=60)
    assert answer.startswith("HTTP/1.1 200"), answer
    assert one_replica.process.returncode == 0
    gone, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert len(gone) > 5
    assert folders
    assert not any((Path("/tmp") / folder).exists() for folder in folders)


def _half_a_request(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = "POST /v1/rank HTTP/1.1\r\nhost: x\r\nx-latency-budget-ms: 60000\r\n"
    client.sendall(f"{head}content-length: {len(BODY)}\r\n\r\n".encode() + BODY[:10])
    return client


def _cmdlines(processes: list[psutil.Process]) -> str:
    lines = []
    for process in processes:
        try:
            lines += process.cmdline()
        except psutil.NoSuchProcess:
            continue
    return "\n".join(lines)


def test_two_servers_on_one_machine(
    two_replicas: ServerProcess, own_run: Path, tmp_path: Path
) -> None:
    with server(own_run, tmp_path / "log", system="student", latency_budget_ms=5000) as other:
        for up in (two_replicas, other):
            with clients(up.port, 1) as threads:
                time.sleep(0.5)
            assert set(total(threads)) == {200}
    assert get(f"{two_replicas.url}/v2/health/ready")


def test_a_taken_port_is_one_sentence(own_run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInputError, match=f"127.0.0.1:{port}") as error:
            serve(own_run, port=port)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_that_cannot_exist_is_one_sentence(own_run: Path, port: int) -> None:
    with pytest.raises(BadInputError, match="between 1 and 65535"):
        serve(own_run, port=port)


def test_what_is_no_run_is_refused_before_ray_starts(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="neither a bundle nor a run"):
        serve(tmp_path)
