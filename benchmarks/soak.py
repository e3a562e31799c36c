"""A constant load for a while, and the slope of the replica's memory under it.

Usage: python -m benchmarks.soak RUN --minutes 10 --rate 200 --out benchmarks/out/soak.json
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.common import one_sentence, write_result
from benchmarks.faults import replicas
from dynens.bundle import load_bundle
from dynens.config.serving import ServingConfig
from serving.environment import APP_NAME, free_port
from serving.loadtest import run_loadtest
from serving.server import running

# The first part of a run fills caches and pools; the slope is fitted on the rest.
_SETTLING = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second")
    parser.add_argument("--budget-ms", type=float, default=8.0)
    options = parser.parse_args()
    result = soak(options.run, options.minutes, options.rate, options.budget_ms)
    write_result(options.out, result)
    print(markdown(result))


def markdown(data: Mapping[str, Any]) -> str:
    """The result in two sentences."""
    load = data["load"]
    return (
        f"{load['offered_qps']:.0f} requests of {load['rows_per_request']} candidates per second "
        f"for {load['duration_s'] / 60:.0f} minutes: p50 {load['p50_ms']:.2f} ms, p99 "
        f"{load['p99_ms']:.2f} ms, errors {load['error_rate']:.3%}, hard rows granted "
        f"{load['granted_share']:.1%}. The replica's memory went from {data['first_mb']:.0f} to "
        f"{data['last_mb']:.0f} MB; the line fitted after the first third rises by "
        f"{data['slope_mb_per_hour']:+.1f} MB per hour."
    )


def soak(run: Path, minutes: float, rate: float, budget_ms: float) -> dict[str, Any]:
    """Everything measured, as JSON values."""
    config = ServingConfig(latency_budget_ms=budget_ms)
    samples: list[tuple[float, float]] = []
    stop = threading.Event()
    with running(load_bundle(run), "127.0.0.1", free_port(), config) as up:
        replica = replicas(APP_NAME)[0]
        sampler = threading.Thread(target=_sample, args=(replica, samples, stop))
        sampler.start()
        try:
            load = run_loadtest(up.url, run, rate, minutes * 60)
        finally:
            stop.set()
            sampler.join()
    times, sizes = np.array(samples).T
    settled = times >= times[0] + _SETTLING * (times[-1] - times[0])
    slope = float(np.polyfit(times[settled], sizes[settled], 1)[0]) * 3600
    return {
        "run": run.name,
        "first_mb": sizes[0],
        "last_mb": sizes[-1],
        "slope_mb_per_hour": slope,
        "load": load.to_dict(),
        "samples": samples,
    }


def _sample(
    process: psutil.Process, samples: list[tuple[float, float]], stop: threading.Event
) -> None:
    while not stop.wait(1.0):
        samples.append((time.monotonic(), process.memory_info().rss / 2**20))


if __name__ == "__main__":
    with one_sentence():
        main()
