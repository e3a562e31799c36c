"""How near each layer is to the one below it, from a bare ONNX session to the server.

    python -m benchmarks.floors RUN --out benchmarks/out/floors.json            (about 6 min)
    python -m benchmarks.floors RUN --short --out benchmarks/out/floors.json    (about 1 min)

Five layers on the same requests of 100 candidates, each for student alone, dynamic and static trio:

1. `onnx`: the graphs on rows that are already encoded, in the form in which requests bring them
   (for the dynamic system: the student on all rows and the ensemble on those above the threshold,
   chosen beforehand);
2. `engine`: `Engine.score` on the same rows: routing, chunks, clock;
3. `request`: raw JSON to rendered JSON without a server: parsing, encoding, engine, rendering;
4. `application`: the ASGI application of a replica without Ray: admission, deadline, scheduler and
   its scoring thread;
5. `server`: the same bytes through HAProxy and Ray Serve, at the client, one low open-loop rate;
   beside it a no-op application, which is the floor under every server figure. At a low rate the
   machine's caches have gone cold between two requests; in 1–4 they have not.

Layers and systems take turns within each round, in this process (1–4, in another order every time)
or through k6 (5); the server is up, idle, while 1–4 are timed. A value is the median of a round's
requests; the table shows the median of rounds with the smallest and largest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks.common import (
    markdown_table,
    median_and_range,
    one_sentence,
    spread,
    write_result,
)
from benchmarks.loads import FULL, SHORT, Bench, Plan, Profile, arguments, variant_configs
from dynens.batch import Rows
from dynens.bundle import load_bundle
from dynens.config.serving import LimitsConfig, System
from dynens.engine import Engine
from dynens.graph import form_of
from dynens.timing import in_turns, median_seconds
from serving.application import Application
from serving.codecs import CODECS, Model
from serving.environment import free_port
from serving.metrics import SnapshotFolder
from serving.replay import open_run_data, request_bodies
from serving.server import running_variants
from tests import asgi

SYSTEMS: dict[str, System] = {"student": "student", "dynamic": "dynamic", "static": "ensemble"}
IN_PROCESS = ("onnx", "engine", "request", "application")
LAYERS = {
    "onnx": "bare ONNX Runtime",
    "engine": "+ engine (routing, chunks)",
    "request": "+ JSON and encoder",
    "application": "+ admission and scheduler",
    "server": "+ HAProxy and Ray Serve",
}
# Wide open, so that every hard row is answered by the ensemble.
_BUDGET_MS = 1000.0
_ROWS, _BODIES = 100, 300
CONFIGS = variant_configs({name: {"system": s} for name, s in SYSTEMS.items()}, _BUDGET_MS)
Work = Callable[[], object]


class Layers:
    """The work of every layer on the same requests."""

    def __init__(self, run: Path, path: str, bodies: Sequence[bytes]) -> None:
        self.engine = Engine.load(run)
        self.model = Model.of(self.engine)
        self.codec = CODECS[path]
        self.path = path
        self.bodies = bodies
        self.loop = uvloop.new_event_loop()
        self.applications = {
            name: Application(self.engine, config, folder=SnapshotFolder(None, name))
            for name, config in CONFIGS.items()
        }
        self.batches = [self._parsed(body)[1] for body in bodies]
        # Beforehand: whoever runs the student just before it is timed finds its rows in the caches.
        self.graphs = {
            name: [self._graphs(name, rows) for rows in self.batches] for name in SYSTEMS
        }

    def _parsed(self, body: bytes) -> tuple[Any, Rows]:
        request = self.codec.parse(body, {}, self.model, LimitsConfig())
        return request, self.codec.encode(request, self.model)

    def work(self, layer: str, system: str, index: int) -> Work:
        """One request of a layer, ready to be timed."""
        if layer == "onnx":
            return self.graphs[system][index]
        if layer == "engine":
            return partial(self.engine.score, self.batches[index], system=SYSTEMS[system])
        if layer == "request":
            return partial(self._request, self.bodies[index], SYSTEMS[system])
        call = asgi.request(self.applications[system], "POST", self.path, self.bodies[index])
        return partial(self.loop.run_until_complete, call)

    def _graphs(self, system: str, rows: Rows) -> Work:
        """The bare graphs of one request, with the logits and hard rows that they take."""
        engine, form = self.engine, form_of(self.engine.layout, rows)
        student = partial(engine.student.score, ("logit", "probability", "difficulty"), rows, form)
        if system == "student":
            return student
        logit, _, difficulty = student()
        if system == "static":
            return partial(engine.ensemble.score, ("trio_probability",), rows, form, logit)
        hard = np.flatnonzero(difficulty > engine.threshold)
        chosen = rows.take(hard)
        ensemble = partial(engine.ensemble.score, ("probability",), chosen, form, logit[hard])

        def both() -> None:
            student()
            if len(hard):
                ensemble()

        return both

    def _request(self, body: bytes, system: System) -> None:
        request, batch = self._parsed(body)
        scores = self.engine.score(batch, system=system)
        report = {"hard_wanted": scores.hard_wanted, "hard_granted": scores.hard_granted}
        self.codec.render(request, batch, scores, self.model, report)


def time_round(layers: Layers, repeats: int) -> dict[str, float]:
    """Median milliseconds of `repeats` requests per layer and system, all taking turns.

    Each turn takes another request: the same one again would find its items in the caches.
    """
    turns = list(itertools.product(IN_PROCESS, SYSTEMS))
    apart = len(layers.bodies) // len(turns)

    def works(repeat: int) -> dict[str, Work]:
        return {
            f"{layer}_{system}": layers.work(
                layer, system, (repeat + turn * apart) % len(layers.bodies)
            )
            for turn, (layer, system) in enumerate(turns)
        }

    seconds = median_seconds(in_turns(works, repeats, warm_up=0))
    return {name: 1e3 * value for name, value in seconds.items()}


def measure(run: Path, plan: Plan, repeats: int, rate: float) -> dict[str, Any]:
    """Milliseconds of every round per layer and system, as JSON values."""
    bundle = load_bundle(run)
    path, bodies = request_bodies(open_run_data(run), _ROWS, _BODIES)
    layers = Layers(run, path, bodies)
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    profiles = {
        f"server_{name}": Profile(f"{base}/{name}{path}", _ROWS, bodies, name != "noop")
        for name in ("noop", *SYSTEMS)
    }
    rounds: list[dict[str, float]] = []
    with running_variants(bundle, "127.0.0.1", port, CONFIGS):
        bench = Bench(profiles, plan)
        bench.warm_up()
        time_round(layers, min(repeats, 20))  # warm-up, discarded
        for _ in range(plan.repeats):
            measured = time_round(layers, repeats)
            for name in profiles:
                measured[name] = bench.send(name, rate, plan.measure_s).p50_ms
            rounds.append(measured)
    return {
        "run": run.name,
        "bundle_version": bundle.version,
        "rows_per_request": _ROWS,
        "rate_qps": rate,
        "requests_per_round": repeats,
        "rounds": rounds,
        "median_ms": summarise_rounds(rounds),
    }


def summarise_rounds(rounds: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Median, smallest and largest round by name."""
    return {name: median_and_range([measured[name] for measured in rounds]) for name in rounds[0]}


def stacked(median_ms: Mapping[str, Sequence[float]]) -> list[list[str]]:
    """Rows of the table: each layer's total, with what it adds to the layer below it."""
    rows = []
    below = dict.fromkeys(SYSTEMS, 0.0)
    for layer, label in LAYERS.items():
        cells = []
        for system in SYSTEMS:
            values = median_ms[f"{layer}_{system}"]
            added = f" [{values[0] - below[system]:+.2f}]" if layer != "onnx" else ""
            cells.append(spread(values) + added)
            below[system] = values[0]
        rows.append([label, *cells])
    return rows


def markdown(result: Mapping[str, Any]) -> str:
    """The stacked table, with the no-op floor."""
    columns = ["layer", *(f"{system}, ms" for system in SYSTEMS)]
    text = markdown_table(columns, stacked(result["median_ms"]))
    return (
        f"{text}\n\nMedian (smallest–largest round) [added to the layer above it in the table]; "
        f"{result['rows_per_request']} candidates. Server: p50 at the client at "
        f"{result['rate_qps']:g} requests per second; a no-op application behind the same HAProxy "
        f"and Ray Serve: {spread(result['median_ms']['server_noop'])} ms."
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rate", type=float, default=20.0, help="requests per second (server)")
    options = parser.parse_args()
    plan, repeats = (SHORT, 100) if options.short else (FULL, 500)
    with one_sentence():
        result = measure(options.run, plan, repeats, options.rate)
    write_result(options.out, result)
    print(markdown(result))


if __name__ == "__main__":
    main()
