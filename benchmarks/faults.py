"""What clients see while something goes wrong beside or inside the server.

Usage: python -m benchmarks.faults RUN --out benchmarks/out/faults.json              (about 3 min)

A constant load of 100 candidates a request runs against one replica (two where one is killed) while

- `slow` lets the replica run for 2 of every 20 ms, so that every member takes ten times as long;
- `pause` stops the replica for 200 ms in every second, as a long garbage collection would;
- `hog` keeps one busy process per core beside the server;
- `kill` ends one of two replicas at once.

The same load without a fault comes before and after. A request must be answered within its budget,
or with an error that says so; health is asked for twenty times a second all the while.
"""

from __future__ import annotations

import http.client
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.common import markdown_table, one_sentence, write_result
from benchmarks.loads import BUDGET_MS, FULL, Bench, Profile, arguments, variant_configs
from dynens.bundle import load_bundle
from dynens.report.console import number
from serving.client import READY_PATH, open_directly
from serving.environment import free_port
from serving.replay import open_run_data, request_bodies
from serving.server import running_variants

SECONDS = {False: 10.0, True: 3.0}
ALONE, PAIR = "alone", "pair"
_ROWS, _BODIES = 100, 500
_LATENCIES = {"p50_ms": 2, "p99_ms": 2, "max_ms": 0}  # digits shown
_HEALTH_EVERY_S = 0.05
_HEALTH_TIMEOUT_S = 5.0

Fault = Callable[[threading.Event], None]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second")
    parser.add_argument("--budget-ms", type=float, default=BUDGET_MS)
    options = parser.parse_args()
    with one_sentence():
        phases = measure(options.run, options.rate, options.budget_ms, SECONDS[options.short])
    result = {"run": options.run.name, "budget_ms": options.budget_ms, "rate_qps": options.rate}
    result |= {"bundle_version": load_bundle(options.run).version, "phases": phases}
    write_result(options.out, result)
    print(markdown(result))


def measure(run: Path, rate: float, budget_ms: float, seconds: float) -> dict[str, Any]:
    """Every phase by name, as JSON values."""
    phases: dict[str, tuple[str, Fault | None]] = {
        "before": (ALONE, None),
        "slow": (ALONE, duty_cycle(0.002, 0.018)),
        "right after slow": (ALONE, None),
        "pause": (ALONE, duty_cycle(0.8, 0.2)),
        "hog": (ALONE, hog),
        "after": (ALONE, None),
        "two replicas": (PAIR, None),
        "kill": (PAIR, kill),
        "after kill": (PAIR, None),
    }
    variants = {ALONE: {"replicas": 1}, PAIR: {"replicas": 2}}
    configs = variant_configs(variants, budget_ms)
    port = free_port()
    path, bodies = request_bodies(open_run_data(run), _ROWS, _BODIES)
    base = f"http://127.0.0.1:{port}"
    profiles = {name: Profile(f"{base}/{name}{path}", _ROWS, bodies) for name in variants}
    measured: dict[str, Any] = {}
    with running_variants(load_bundle(run), "127.0.0.1", port, configs):
        bench = Bench(profiles, replace(FULL, budget_ms=budget_ms))
        bench.warm_up()
        for name, (variant, fault) in phases.items():
            with probing(f"{base}/{variant}{READY_PATH}") as health, injected(fault):
                measured[name] = bench.send(variant, rate, seconds).to_dict()
            measured[name]["health"] = health_summary(health)
    return measured


def replicas(variant: str) -> list[psutil.Process]:
    """The scoring processes of an application that this process started, oldest first."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if f"ServeReplica:{variant}:" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return sorted(found, key=lambda process: process.create_time())


def duty_cycle(run_s: float, stop_s: float) -> Fault:
    """A fault that lets the replica run for `run_s`, then stops it for `stop_s`, and so on."""

    def fault(stop: threading.Event) -> None:
        replica = replicas(ALONE)[0]
        try:
            while not stop.wait(run_s):
                replica.send_signal(signal.SIGSTOP)
                time.sleep(stop_s)
                replica.send_signal(signal.SIGCONT)
        finally:
            replica.send_signal(signal.SIGCONT)

    return fault


def hog(stop: threading.Event) -> None:
    """Keep every core busy."""
    spawn = multiprocessing.get_context("spawn")
    busy = [spawn.Process(target=_spin, daemon=True) for _ in range(psutil.cpu_count() or 1)]
    for process in busy:
        process.start()
    stop.wait()
    for process in busy:
        process.kill()
        process.join()


def _spin() -> None:
    while True:
        pass


def kill(stop: threading.Event) -> None:
    """End one replica after a second of load."""
    if not stop.wait(1.0):
        replicas(PAIR)[0].kill()


@contextmanager
def injected(fault: Fault | None) -> Iterator[None]:
    """A fault for as long as the context lasts."""
    if fault is None:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=fault, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def probing(url: str) -> Iterator[list[float | None]]:
    """Ask a page again and again: seconds of every answer, None where there was none."""
    answers: list[float | None] = []
    stop = threading.Event()

    def probe() -> None:
        while not stop.wait(_HEALTH_EVERY_S):
            started = time.perf_counter()
            try:
                with open_directly(url, _HEALTH_TIMEOUT_S) as answer:
                    answer.read()
            except (OSError, http.client.HTTPException):
                answers.append(None)
            else:
                answers.append(time.perf_counter() - started)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()


def health_summary(answers: list[float | None]) -> dict[str, Any]:
    """Number of probes, how many failed, and the slowest in ms."""
    seconds = [a for a in answers if a is not None]
    return {
        "probes": len(answers),
        "failed": len(answers) - len(seconds),
        "p99_ms": 1e3 * float(np.quantile(seconds, 0.99)) if seconds else None,
        "max_ms": 1e3 * max(seconds) if seconds else None,
    }


def markdown(data: Mapping[str, Any]) -> str:
    """A table with one row per phase."""
    rows = []
    for name, phase in data["phases"].items():
        answered = phase["requests"] - sum(phase["errors"].values())
        errors = [f"{n} × {status}" for status, n in phase["errors"].items()]
        if phase["not_sent"]:
            errors.append(f"{phase['not_sent']} not sent")
        health = phase["health"]
        rows.append(
            [
                name,
                f"{answered}",
                ", ".join(errors) or "none",
                f"{phase['late']}",
                " / ".join(number(phase[key], d) for key, d in _LATENCIES.items()),
                f"{phase['granted_share']:.0%}",
                f"{health['failed']} of {health['probes']}, {number(health['max_ms'], 0)} ms",
            ]
        )
    columns = (
        "phase",
        "answered",
        "errors by status",
        "late at the client",
        "p50 / p99 / max, ms",
        "hard rows granted",
        "health: failed, slowest",
    )
    note = (
        f"{data['rate_qps']:.0f} requests per second, budget {data['budget_ms']:.0f} ms. Late at "
        "the client: complete answers that left the server in time and arrived after the budget. "
        "`slow`: the replica runs a tenth of the time; `pause`: it stops for 200 ms in every "
        "second; `hog`: a busy process per core; `kill`: one of two replicas dies."
    )
    return f"{markdown_table(columns, rows)}\n\n{note}"


if __name__ == "__main__":
    main()
