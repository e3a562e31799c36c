"""The Ray cluster that a run uses: one that is there, or one of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import ray

from dynens.config.run import RayConfig
from dynens.errors import TrainingError, briefly
from dynens.signals import starting_ray

OBJECT_STORE_BYTES = 100 * 1024 * 1024
_ANSWERS_WITHIN_S = 10.0


@contextlib.contextmanager
def cluster(config: RayConfig) -> Iterator[int]:
    """Connect to a Ray cluster, or start one here and stop it afterwards; yields its cores.

    Raises:
        TrainingError: it cannot be reached or started.
    """
    already = ray.is_initialized()
    if not already:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Ray runs workers at niceness 15, and training crawls beside any ordinary process.
        os.environ.setdefault("RAY_worker_niceness", "0")
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if config.address is None:
            options |= {
                "num_cpus": config.num_cpus or os.cpu_count(),
                "object_store_memory": OBJECT_STORE_BYTES,
                "include_dashboard": False,
            }
        try:
            with starting_ray():
                if config.address:
                    _knock(config.address)
                ray.init(address=config.address or "local", **options)
        except Exception as e:  # a node that does not come up in time is a bare one
            raise TrainingError(_why(e, config.address)) from e
    try:
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        if not already:
            ray.shutdown()


def cancel_running(references: Iterable[Any]) -> None:
    """End tasks by force, but for those that have ended: one that just has would end this process
    with it (Ray 2.60)."""
    waiting = list(references)
    _, running = ray.wait(waiting, num_returns=len(waiting), timeout=0)
    for reference in running:
        ray.cancel(reference, force=True)


def _knock(address: str) -> None:
    """Raise OSError where nothing listens at host:port, which Ray would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _ANSWERS_WITHIN_S).close()


def _why(error: Exception, address: str | None) -> str:
    """Why there is no cluster, and what to do about it."""
    if address:
        return (
            f"Ray at {address} cannot be reached ({briefly(error)}); correct ray.address, or leave "
            "it out to start Ray here, and continue with --resume."
        )
    folder = os.environ.get("RAY_TMPDIR", "/tmp")
    return (
        f"Ray did not start ({briefly(error)}); see that its folder {folder} can be written and "
        "has room, or name another one with a short path in RAY_TMPDIR, and continue with --resume."
    )
