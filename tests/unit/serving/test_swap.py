"""Keeping, checking and changing bundles, without Ray."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from dynens.bundle import load_bundle
from dynens.config.serving import EngineConfig, ServingConfig
from dynens.errors import BadInputError, BundleError, ServingError
from dynens.schema import FieldSpec
from serving import control, swap
from serving.control import find_runtime, listening, send_command
from serving.environment import Runtime, free_port, is_alive
from serving.haproxy_wrapper import DIRECTORY_VARIABLE
from serving.leftovers import end_leftovers, remove_dead
from serving.metrics import ReplicaMetrics, SnapshotFolder
from serving.swap import BundleKeeper
from tests.bundles import write_toy_bundle


class FakeReplica:
    """Follows `deploy` like a replica; may refuse a version."""

    def __init__(self, runtime: Runtime) -> None:
        self.folder = SnapshotFolder(runtime.metrics, "r1")
        self.refuses = ""
        self.calls: list[int] = []

    def deploy(self, directory: Path, generation: int) -> None:
        self.calls.append(generation)
        bundle = load_bundle(directory)
        if bundle.version != self.refuses:
            self.folder.write(ReplicaMetrics(bundle.layout, bundle.version).snapshot())


@pytest.fixture
def other(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "other")
    return write_toy_bundle(tmp_path / "other", seed=5, hidden=(32,))


@pytest.fixture
def keeper(runtime: Runtime, run: Path) -> BundleKeeper:
    return BundleKeeper(runtime, load_bundle(run), QUICK)


QUICK = ServingConfig(engine=EngineConfig(warm_up_repeats=1))


def test_swap_and_rollback_survive_the_source(
    keeper: BundleKeeper, runtime: Runtime, other: Path
) -> None:
    replica = FakeReplica(runtime)
    first, second = keeper.current.version, load_bundle(other).version
    command = {"command": "swap", "bundle": str(other)}
    assert keeper.handle(command, replica.deploy)["bundle_version"] == second
    shutil.rmtree(other / "bundle")
    status = keeper.handle({"command": "rollback"}, replica.deploy)
    assert status == {"bundle_version": first, "previous": second}
    assert keeper.handle({"command": "rollback"}, replica.deploy)["bundle_version"] == second
    assert replica.calls == [1, 2, 3]


def test_the_same_bundle_again_is_no_work(keeper: BundleKeeper, run: Path) -> None:
    command = {"command": "swap", "bundle": str(run)}
    assert keeper.handle(command, lambda *_: pytest.fail("deployed"))["previous"] is None


def test_there_may_be_nothing_to_go_back_to(keeper: BundleKeeper) -> None:
    with pytest.raises(BadInputError, match="no bundle before"):
        keeper.handle({"command": "rollback"}, lambda *_: None)


def test_replicas_that_do_not_follow_bring_all_back(
    keeper: BundleKeeper, runtime: Runtime, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "_TIMEOUT_S", 0.5)
    replica = FakeReplica(runtime)
    replica.refuses = load_bundle(other).version
    first = keeper.current.version
    with pytest.raises(ServingError, match="not every replica"):
        keeper.handle({"command": "swap", "bundle": str(other)}, replica.deploy)
    assert keeper.current.version == first
    assert replica.calls == [1, 2]
    assert _kept(keeper) == [first]


def test_a_deployment_that_fails_brings_the_old_bundle_back(
    keeper: BundleKeeper, runtime: Runtime, other: Path
) -> None:
    first, deployed = keeper.current, []

    def deploy(directory: Path, generation: int) -> None:
        deployed.append(directory)
        if directory != first.directory:
            raise ServingError("the replicas did not start: no memory")

    with pytest.raises(ServingError, match=f"no memory; all answer from {first.version} again"):
        keeper.handle({"command": "swap", "bundle": str(other)}, deploy)
    assert deployed[-1] == first.directory
    assert keeper.handle({"command": "status"}, deploy)["bundle_version"] == first.version
    assert _kept(keeper) == [first.version]


def test_a_failed_swap_to_the_bundle_before_leaves_it_to_go_back_to(
    keeper: BundleKeeper, runtime: Runtime, run: Path, other: Path
) -> None:
    replica = FakeReplica(runtime)
    first = keeper.current.version
    keeper.handle({"command": "swap", "bundle": str(other)}, replica.deploy)

    def deploy(directory: Path, generation: int) -> None:
        if directory.name == first:
            raise ServingError("the replicas did not start: no memory")

    with pytest.raises(ServingError, match="no memory"):
        keeper.handle({"command": "swap", "bundle": str(run)}, deploy)
    assert keeper.handle({"command": "rollback"}, replica.deploy)["bundle_version"] == first


def _kept(keeper: BundleKeeper) -> list[str]:
    """Versions in the private folder."""
    return sorted(path.name for path in keeper.current.directory.parent.iterdir())


def test_a_copy_that_fails_is_tried_afresh(
    keeper: BundleKeeper, runtime: Runtime, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, command = FakeReplica(runtime), {"command": "swap", "bundle": str(other)}
    copy = shutil.copytree

    def half(source: Path, target: Path) -> None:
        target.mkdir(parents=True)
        shutil.copy(source / "manifest.json", target)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copytree", half)
    with pytest.raises(ServingError, match=r"cannot be copied .* \(No space left on device\)"):
        keeper.handle(command, replica.deploy)
    monkeypatch.setattr("shutil.copytree", copy)
    version = load_bundle(other).version
    assert keeper.handle(command, replica.deploy)["bundle_version"] == version


def test_a_bundle_replaced_while_it_is_copied_has_its_own_name(
    keeper: BundleKeeper, other: Path
) -> None:
    third = write_toy_bundle(shutil.copytree(other, other.with_name("third")), seed=6, hidden=(32,))
    bundle = load_bundle(other)
    shutil.rmtree(bundle.directory)
    (third / "bundle").rename(bundle.directory)
    kept = keeper._keep(bundle)
    assert kept.directory.name == kept.version == load_bundle(other).version
    assert _kept(keeper) == sorted([kept.version, keeper.current.version])


def test_a_bundle_that_clients_could_not_use_is_refused(
    keeper: BundleKeeper, run: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dynens.data.encoding.encoders import RowEncoder
    from dynens.data.encoding.raw_inputs import InputField

    load = RowEncoder.load

    def altered(directory: Path) -> RowEncoder:
        encoder = load(directory)
        if keeper.current.directory not in directory.parents:
            fields = [f for f in encoder.input_fields if f.name != "town"]
            encoder.input_fields = (*fields, InputField("town", "numeric", "user"))
        return encoder

    monkeypatch.setattr("dynens.engine.RowEncoder.load", altered)
    assert FieldSpec(name="town").kind != "numeric"
    with pytest.raises(BundleError, match="does not take the fields town"):
        keeper.handle({"command": "swap", "bundle": str(other)}, lambda *_: None)
    assert not (keeper.current.directory.parent / load_bundle(other).version).exists()


def test_a_threshold_of_the_server_is_not_laid_over_another_kind_of_score(
    runtime: Runtime, run: Path, other: Path
) -> None:
    write_toy_bundle(other, seed=5, difficulty="predicted_gain")
    swap = {"command": "swap", "bundle": str(other)}
    given = BundleKeeper(runtime, load_bundle(run), QUICK.model_copy(update={"threshold": -0.5}))
    with pytest.raises(BundleError, match=r"by predicted_gain, .* of -0.5 .* is one of margin"):
        given.handle(swap, lambda *_: None)
    replica = FakeReplica(runtime)
    for threshold in (None, float("-inf")):
        config = QUICK.model_copy(update={"threshold": threshold})
        keeper = BundleKeeper(runtime, load_bundle(run), config)
        assert keeper.handle(swap, replica.deploy)["previous"] == keeper.previous.version


def test_commands_travel_over_the_private_socket(
    runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()

    def handler(command: dict[str, object]) -> dict[str, object]:
        if command["command"] == "swap":
            raise BundleError("not that one.")
        return {"heard": command["command"]}

    with listening(runtime, port, handler):
        assert find_runtime(port) == runtime
        assert runtime.control.stat().st_mode & 0o777 == 0o600
        assert runtime.directory.stat().st_mode & 0o777 == 0o700
        assert send_command(port, {"command": "status"}) == {"heard": "status"}
        with pytest.raises(BadInputError, match="not that one"):
            send_command(port, {"command": "swap", "bundle": "x"})
        with pytest.raises(ServingError, match="failed \\(KeyError\\)"):
            send_command(port, {})
        with socket.socket(socket.AF_UNIX) as deep:
            deep.connect(str(runtime.control))
            deep.sendall(b"[" * 60_000 + b"\n")
            assert b"RecursionError" in deep.recv(1000)
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(str(runtime.control))
            rude.sendall(b"\xff\n")
        assert control.main(["--port", str(port), "status"]) == 0
        assert capsys.readouterr().out == '{"heard": "status"}\n'
        assert control.main(["--port", str(port), "swap", "x"]) == 2
        assert capsys.readouterr().err == "not that one.\n"


def test_the_status_is_told_while_a_swap_takes_its_time(runtime: Runtime) -> None:
    port, begun, end = free_port(), threading.Event(), threading.Event()

    def handler(command: dict[str, object]) -> dict[str, object]:
        if command["command"] == "swap":
            begun.set()
            assert end.wait(10)
        return {"heard": command["command"]}

    with listening(runtime, port, handler), ThreadPoolExecutor(1) as executor:
        swapped = executor.submit(send_command, port, {"command": "swap"})
        assert begun.wait(10)
        assert send_command(port, {"command": "status"}) == {"heard": "status"}
        assert not swapped.done()
        end.set()
        assert swapped.result() == {"heard": "swap"}


def test_folders_of_killed_servers_are_neither_asked_nor_kept(runtime: Runtime) -> None:
    """Their processes cannot say goodbye; the lock on the folder goes with them."""
    port = free_port()
    code = (
        "import os, signal; from serving.environment import create_runtime\n"
        "runtime = create_runtime()\n"
        f"runtime.port_file.write_text('{port}')\n"
        "print(runtime.directory, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    dead = Runtime(Path(killed.stdout.strip()))
    assert (dead.directory.exists(), is_alive(dead), is_alive(runtime)) == (True, False, True)
    with listening(runtime, port, lambda command: {"heard": command["command"]}):
        assert send_command(port, {"command": "status"}) == {"heard": "status"}
    remove_dead()
    assert not dead.directory.exists()
    assert runtime.directory.exists()


def test_leftovers_are_known_by_their_environment_and_take_their_children_along(
    runtime: Runtime,
) -> None:
    code = (
        "import subprocess, sys\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(20)']\n"
        "child = subprocess.Popen(sleep, env={})\n"
        "print(child.pid, flush=True)\n"
        "child.wait()"
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | {DIRECTORY_VARIABLE: str(runtime.directory)}
    reader = [sys.executable, "-c", "input()", f"{runtime.directory}/x.log"]
    with (
        subprocess.Popen(reader, stdin=subprocess.PIPE) as stranger,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent,
    ):
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        end_leftovers(runtime)
        child_ended, _ = psutil.wait_procs([child], timeout=10)
        assert stranger.poll() is None
        stranger.communicate(b"\n")
    assert child_ended
    assert stranger.returncode == 0


def test_without_a_server_the_command_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert control.main(["--port", str(free_port()), "status"]) == 2
    assert "no server" in capsys.readouterr().err
