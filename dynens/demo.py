"""`dynens demo`: the whole road on real data, each step the same command a user would type."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from dynens.errors import BadInputError, ServingError
from dynens.run import RunDirectory

LOAD_RATE_QPS = 100.0
LOAD_SECONDS = 20.0
LOAD_ROWS = 100
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 40.0
EXAMPLE_ROWS = 2000
WARM_UP_REQUESTS = 20
# The two answers are to be seen even where other work slows the machine.
EXAMPLE_BUDGET_MS = 1000
MODES = (("student only", "student"), ("static ensemble", "ensemble"), ("dynamic", "dynamic"))


@dataclass
class Stopwatch:
    """Wall time of every step of the demo, in s."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, console: Console, name: str) -> Iterator[None]:
        console.rule(name, align="left")
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start


def run_demo(*, full: bool, out: Path, console: Console) -> None:
    """Fetch, train, distil, route, evaluate, serve, load-test; print the headline table.

    Args:
        full: all of MovieLens-1M instead of a quarter of its users.
        out: the run directory; a previous demo's is replaced.
        console: where everything is printed.

    Raises:
        BadInputError: `out` holds something that is not a run.
        ServingError: a server did not come up.
    """
    from dynens.cli import run_fit
    from dynens.config.run import load_run_config
    from dynens.data.datasets.presets import dataset_for

    watch = Stopwatch()
    _clear(out)
    with watch.step(console, "fetch MovieLens-1M"):
        dataset = dataset_for(
            "movielens-1m" if full else "movielens-1m-sample",
            progress=lambda line: console.print(line, highlight=False),
        )
    with watch.step(console, "train, distil, route, evaluate"):
        metrics = run_fit(dataset, load_run_config(None, []), out, resume=False, console=console)
    loads: dict[str, Any] = {}
    for title, system in MODES:
        with watch.step(console, f"serve and load-test: {title}"), server(out, system) as url:
            if system == "dynamic":
                show_answers(console, RunDirectory.open(out), url)
            loads[title] = _load(console, url, out)
    _summary(console, metrics, loads, watch, out)


def _clear(out: Path) -> None:
    if not os.path.exists(out):
        return
    run = RunDirectory(out)
    if not (run.config.is_file() and run.environment.is_file()):
        raise BadInputError(f"{out} exists and is not a run; choose another --out directory.")
    shutil.rmtree(out)


@contextlib.contextmanager
def server(run: Path, system: str) -> Iterator[str]:
    """`dynens serve` as a process of its own, ready; drained and gone afterwards."""
    from serving.client import READY_PATH, wait_ready
    from serving.environment import free_port

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--port", str(port), "--system", system]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dynens.cli", "serve", str(run), *options],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            if not wait_ready(url + READY_PATH, process, timeout_s=READY_TIMEOUT_S):
                log.seek(0)
                tail = log.read().decode(errors="replace").strip().splitlines()[-1:]
                raise ServingError(
                    f"the server did not become ready: {' '.join(tail) or 'no message'}"
                )
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def show_answers(console: Console, run: RunDirectory, url: str) -> None:
    """Ask the server about the easiest and the hardest of some test rows; print both answers."""
    from dynens.data.prepared import open_prepared
    from dynens.engine import Engine
    from serving.replay import infer_body

    data = open_prepared(run.data)
    raw = data.raw_test().slice(0, EXAMPLE_ROWS)
    engine = Engine.load(run.root)
    rows = engine.encoder.encode_table(raw)
    (difficulty,) = engine.student.run(("difficulty",), rows.dense, rows.ids)
    for name, position in (("easiest", difficulty.argmin()), ("hardest", difficulty.argmax())):
        row: pa.Table = raw.slice(int(position), 1)
        answer = _ask(f"{url}/v2/models/dynens/infer", infer_body(engine.encoder, row))
        outputs = {o["name"]: o["data"][0] for o in answer["outputs"]}
        parameters = answer["parameters"]
        console.print(
            f"{name} row: probability {outputs['probability']:.4f}, answered by "
            f"{'the ensemble' if outputs['route'] else 'the student'} (route {outputs['route']}) "
            f"in {parameters['elapsed_ms']:.2f} of {parameters['budget_ms']:.0f} ms",
            highlight=False,
        )


def _ask(url: str, body: bytes) -> dict[str, Any]:
    """The last of several answers: the first ones come from cold caches."""
    from serving.client import open_directly

    headers = {"Content-Type": "application/json", "x-latency-budget-ms": str(EXAMPLE_BUDGET_MS)}
    request = urllib.request.Request(url, body, headers)
    answer: dict[str, Any] = {}
    for _ in range(WARM_UP_REQUESTS):
        try:
            with open_directly(request, 10) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as e:
            raise ServingError(f"the server refused a row: {json.load(e)['error']}") from e
    return answer


def _load(console: Console, url: str, run: Path) -> Any:
    from serving.loadtest import run_loadtest

    with console.status("load test"):
        result = run_loadtest(url, run, LOAD_RATE_QPS, LOAD_SECONDS, LOAD_ROWS)
    console.print(
        f"{result.achieved_qps:.0f} of {result.offered_qps:.0f} requests/s answered, p50 "
        f"{result.p50_ms:.2f} ms, p99 {result.p99_ms:.2f} ms at the client",
        highlight=False,
    )
    return result


def _summary(
    console: Console, metrics: dict[str, Any], loads: dict[str, Any], watch: Stopwatch, out: Path
) -> None:
    from dynens.report.console import headline, number

    console.rule("result", align="left")
    table = Table(
        title=f"{metrics['dataset']}, {LOAD_ROWS} candidates a request, "
        f"{LOAD_RATE_QPS:.0f} requests/s for {LOAD_SECONDS:.0f} s",
        title_justify="left",
    )
    for column in ("mode", "AUC", "hard rows", "µs/row", "p50 ms", "p99 ms", "errors"):
        table.add_column(column, justify="left" if column == "mode" else "right")
    rows = {"student only": "student", "static ensemble": "static_ensemble", "dynamic": "dynamic"}
    for title, name in rows.items():
        system, load = metrics["systems"][name], loads[title]
        hard = {"student": 0.0, "static_ensemble": 1.0}.get(name, load.hard_share)
        table.add_row(
            title,
            number(system["auc"]),
            f"{hard:.1%}",
            number(system["cost_us_per_row"], 2),
            f"{load.p50_ms:.2f}",
            f"{load.p99_ms:.2f}",
            f"{load.error_rate:.2%}",
        )
    console.print(table)
    for sentence in headline(metrics):
        console.print(sentence, highlight=False, soft_wrap=True)
    for name, seconds in watch.seconds.items():
        console.print(f"{seconds:7.1f} s  {name}", highlight=False)
    console.print(f"report: {out / 'report' / 'report.html'}", soft_wrap=True)
