"""A real server in a process of its own, for integration tests and benchmarks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from serving.client import open_directly
from serving.environment import free_port

_ROOT = Path(__file__).resolve().parent.parent
_MAIN = """
import json, sys
from pathlib import Path
from dynens.config.serving import ServingConfig
from dynens.errors import DynensError
from serving.server import serve
options = json.loads(sys.argv[1])
try:
    serve(
        Path(options["run"]),
        port=options["port"],
        config=ServingConfig.model_validate(options["config"]),
        on_ready=lambda url: print("READY", url, flush=True),
    )
except DynensError as e:
    print(e, file=sys.stderr)
    sys.exit(e.exit_code)
"""


class ServerProcess:
    """One running server.

    Attributes:
        url: its address.
        port: its port.
        process: the process that runs `serve`.
    """

    def __init__(self, run: Path, log: Path, port: int | None = None, **config: Any) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        options = {"run": str(run), "port": self.port, "config": config}
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, json.dumps(options)],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=_ROOT,
                env=os.environ | {"PYTHONPATH": str(_ROOT)},
            )

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Until the server itself says so: from then on a signal drains it."""
        give_up = time.monotonic() + timeout_s
        while "READY" not in self.log:
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.stop()
                raise AssertionError(f"the server did not come up:\n{self.log}")
            time.sleep(0.1)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def descendants(self) -> list[psutil.Process]:
        """Every process that belongs to this server, Ray's included."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def replicas(self) -> list[psutil.Process]:
        return [p for p in self.descendants() if "ServeReplica" in command_line(p)]

    def stop(self, timeout_s: float = 60.0) -> int:
        """SIGTERM, then SIGKILL for whatever does not go; returns the exit code."""
        family = self.descendants()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            _, alive = psutil.wait_procs(family, timeout=5)
            for process in alive:
                process.kill()


def command_line(process: psutil.Process) -> str:
    """Empty where the process has ended."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


@contextmanager
def server(run: Path, log: Path, **config: Any) -> Iterator[ServerProcess]:
    """A ready server for as long as the context lasts."""
    process = ServerProcess(run, log, **config)
    try:
        process.wait_ready()
        yield process
    finally:
        process.stop()


def get(url: str) -> bytes:
    """The body of a GET."""
    with open_directly(url, 10) as answer:
        body: bytes = answer.read()
        return body
