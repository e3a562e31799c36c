"""The Ray cluster that a run uses: one that is there, or one of its own."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import ray

from dynens.config.run import RayConfig
from dynens.errors import TrainingError
from dynens.signals import starting_ray

OBJECT_STORE_BYTES = 100 * 1024 * 1024


@contextlib.contextmanager
def cluster(config: RayConfig) -> Iterator[int]:
    """Connect to a Ray cluster, or start one here and stop it afterwards; yields its cores."""
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
                ray.init(address=config.address, **options)
        except Exception as e:  # a node that does not come up in time is a bare one
            where = config.address or "on this machine"
            raise TrainingError(f"Ray {where} could not be reached or started ({e}).") from e
    try:
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        if not already:
            ray.shutdown()
