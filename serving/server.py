"""`dynens serve`: Ray, Ray Serve and HAProxy brought up for one bundle, and down again."""

from __future__ import annotations

import io
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import psutil

from dynens.bundle import Bundle, load_bundle
from dynens.config.serving import ServingConfig
from dynens.engine import Engine
from dynens.errors import BadInputError, ServingError, briefly
from dynens.signals import handled_by, starting_ray
from serving.client import READY_PATH, wait_ready
from serving.control import listening
from serving.environment import (
    APP_NAME,
    Runtime,
    bearer_token,
    create_runtime,
    ray_environment,
)
from serving.leftovers import end_leftovers, processes_of, remove_dead, send_signal
from serving.swap import BundleKeeper

if TYPE_CHECKING:
    from ray.serve import Application

OnReady = Callable[[str], None]
_READY_TIMEOUT_S = 120.0
_HAPROXY_NAME = "haproxy"


def serve(
    run_dir: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    config: ServingConfig | None = None,
    on_ready: OnReady | None = None,
) -> None:
    """Serve a bundle until SIGTERM or SIGINT, then drain and leave no process behind.

    While the server starts, the first of these signals ends the start.

    Args:
        run_dir: a run directory or a bundle.
        host: address to listen on.
        port: port to listen on.
        config: everything else.
        on_ready: called with the URL once requests are answered.

    Raises:
        BundleError: no usable bundle there.
        BadInputError: the port is taken, the address does not exist, or the bearer token is empty.
        ServingError: the server did not come up.
        KeyboardInterrupt: it was stopped before it had.
    """
    bundle = load_bundle(run_dir)
    ready, stop = threading.Event(), threading.Event()
    with _signals(ready, stop), running(bundle, host, port, config or ServingConfig(), stop) as up:
        ready.set()
        if on_ready is not None:
            on_ready(up.url)
        while not stop.wait(0.5):
            pass


def check_port(host: str, port: int) -> None:
    """Raise BadInputError unless `host:port` can be listened on."""
    if not host:  # to the system, every interface
        raise BadInputError("--host is empty; give an address to listen on, such as 127.0.0.1.")
    try:
        with socket.create_server((host, port)):
            pass
    except OverflowError as e:
        raise BadInputError(f"port {port} is not between 1 and 65535; choose another.") from e
    except OSError as e:
        why = str(e.strerror).partition(" (while")[0]
        raise BadInputError(
            f"cannot listen on {host}:{port} ({why}); choose another with --port or --host."
        ) from e


@contextmanager
def running(
    bundle: Bundle,
    host: str,
    port: int,
    config: ServingConfig,
    stop: threading.Event | None = None,
) -> Iterator[Running]:
    """A server for as long as the context lasts, ready to answer; sets `stop` when it ends."""

    def deploy(runtime: Runtime, directory: Path, generation: int) -> None:
        from serving.app import AppArgs, build  # imports Ray, which reads the environment

        arguments = AppArgs(
            bundle=str(directory),
            serving=config,
            metrics_dir=str(runtime.metrics),
            generation=generation,
        )
        _run_application(build(arguments), APP_NAME)

    # Whatever is wrong is said here, in a sentence, not in a replica's traceback.
    bearer_token(config.bearer_token_env)
    Engine.load(bundle.directory, config.engine, verify=False)
    keepers: list[BundleKeeper] = []

    def start(runtime: Runtime) -> None:
        keepers.append(BundleKeeper(runtime, bundle, config))
        deploy(runtime, keepers[0].current.directory, 0)

    with _ray_serve(host, port, config, start, stop) as up:

        def handle(command: dict[str, Any]) -> dict[str, Any]:
            return keepers[0].handle(command, partial(deploy, up.runtime))

        with listening(up.runtime, port, handle):
            yield up


@contextmanager
def running_variants(
    bundle: Bundle,
    host: str,
    port: int,
    variants: Mapping[str, ServingConfig],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Several settings of one bundle and the no-op application under one Ray and one HAProxy.

    For comparisons on equal terms: each variant answers under `/<its name>`, the no-op application
    under `/noop`. `environment` is laid over the server's, to measure other settings of Ray Serve.
    """

    def start(runtime: Runtime) -> None:
        from serving.app import AppArgs, build
        from serving.noop import Noop

        _run_application(Noop.bind(), "noop", "/noop")  # type: ignore[attr-defined]
        for name, config in variants.items():
            folder = runtime.metrics / name
            folder.mkdir()
            arguments = AppArgs(
                bundle=str(bundle.directory.resolve()), serving=config, metrics_dir=str(folder)
            )
            _run_application(build(arguments), name, f"/{name}")

    replicas = sum(config.replicas for config in variants.values())
    ready = f"/{next(iter(variants))}{READY_PATH}"
    shared = ServingConfig(replicas=replicas)
    with _ray_serve(host, port, shared, start, None, ready, environment) as up:
        yield up


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        url: its address.
        runtime: its private folders.
        ready_s: how long it took to come up.
    """

    url: str
    runtime: Runtime
    ready_s: float


@contextmanager
def _ray_serve(
    host: str,
    port: int,
    config: ServingConfig,
    start: Callable[[Runtime], None],
    stop: threading.Event | None,
    ready_path: str = READY_PATH,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Ray and Serve with the application that `start` deploys; sets `stop` when they are to end."""
    began = time.monotonic()
    check_port(host, port)
    _refuse_second_ray()
    remove_dead()
    runtime = create_runtime()
    previous = dict(os.environ)
    url = f"http://{host}:{port}"
    try:
        settings = ray_environment(runtime, drain_s=config.drain_s) | dict(environment or {})
        os.environ.update(settings)
        os.environ["PYTHONPATH"] = _python_path(previous.get("PYTHONPATH"))
        with starting_ray():
            _start_ray(runtime, config)
        _start_serve(host, port)
        start(runtime)
        if not wait_ready(url + ready_path, timeout_s=_READY_TIMEOUT_S):
            raise ServingError(f"{url} did not become ready within {_READY_TIMEOUT_S:.0f} s.")
        yield Running(url, runtime, time.monotonic() - began)
    finally:
        if stop is not None:
            stop.set()  # a signal must not interrupt what follows
        _drain(runtime, config.drain_s)
        _stop_everything(runtime)
        os.environ.clear()
        os.environ.update(previous)


def _python_path(previous: str | None) -> str:
    """Workers must find this package also where it is not installed."""
    root = str(Path(__file__).resolve().parent.parent)
    return root if not previous else f"{root}{os.pathsep}{previous}"


def _refuse_second_ray() -> None:
    """A process has one Ray; this server's must not be mixed up with, nor end, another one."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        raise ServingError("Ray is running in this process already; serve from another process.")


def _start_ray(runtime: Runtime, config: ServingConfig) -> None:
    import ray

    try:
        ray.init(
            address="local",
            num_cpus=config.replicas + 1,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=True,
            logging_level=logging.ERROR,
            object_store_memory=config.object_store_mb * 1024 * 1024,
            _temp_dir=str(runtime.ray),
            _node_ip_address="127.0.0.1",
        )
    except Exception as e:  # Ray raises many kinds
        raise ServingError(
            f"Ray did not start ({briefly(e)}); see that {runtime.directory.parent} has room, and "
            f"memory the {config.object_store_mb} MB of object_store_mb."
        ) from e


def _start_serve(host: str, port: int) -> None:
    from ray import serve as ray_serve
    from ray.exceptions import RayError
    from ray.serve.config import HTTPOptions

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        ray_serve.start(http_options=HTTPOptions(host=host, port=port))
    except (RayError, TimeoutError) as e:
        last_line = (str(e).strip().splitlines() or [type(e).__name__])[-1]
        raise ServingError(f"HAProxy did not start: {last_line[:300]}") from e


def _run_application(application: Application, name: str, prefix: str = "/") -> None:
    from ray import serve as ray_serve
    from ray.exceptions import RayError

    try:
        ray_serve.run(application, name=name, route_prefix=prefix)
    except (RuntimeError, RayError, TimeoutError) as e:
        raise ServingError(f"the replicas did not start: {_failure(name) or e}") from e


def _failure(app_name: str) -> str:
    """The last line of what Ray Serve says about an application that failed."""
    from ray import serve as ray_serve

    app = ray_serve.status().applications.get(app_name)
    if app is None:
        return ""
    messages = [app.message, *(d.message for d in app.deployments.values())]
    lines = [line.strip() for text in messages for line in text.splitlines() if line.strip()]
    logging.getLogger("dynens.serving").error("%s", "\n".join(messages))
    return lines[-1] if lines else ""


@contextmanager
def _signals(ready: threading.Event, stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`; the first one before `ready` raises KeyboardInterrupt, too."""

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        is_start = not ready.is_set() and not stop.is_set()
        stop.set()
        if is_start:
            raise KeyboardInterrupt

    with handled_by(handle):
        yield


def _drain(runtime: Runtime, drain_s: float) -> None:
    """Have HAProxy refuse new connections, and wait until it has answered what it accepted."""
    proxies = [p for p in processes_of(runtime) if _HAPROXY_NAME in p.info["name"]]
    for process in proxies:
        send_signal(process, signal.SIGUSR1)  # soft stop
    psutil.wait_procs(proxies, timeout=drain_s)


def _stop_everything(runtime: Runtime) -> None:
    """Drain the replicas, stop Ray, end whatever is left, remove the folder."""
    ray = sys.modules.get("ray")  # None: stopped before, or while, it was imported
    if ray is not None:
        # Ray prints into the driver's output that its controller was stopped.
        with redirect_stdout(io.StringIO()):
            if ray.is_initialized():
                _stop_serve()
            ray.shutdown()  # also where it was stopped while it began
    end_leftovers(runtime)
    shutil.rmtree(runtime.directory, ignore_errors=True)


def _stop_serve() -> None:
    from ray import serve as ray_serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        ray_serve.shutdown()
    except Exception:
        logging.getLogger("dynens.serving").exception("Ray Serve did not stop cleanly")
