"""The static trio behind Mosec and LitServe, against dynens on the same cores.

    python -m benchmarks.peers RUN --out benchmarks/out/peers.json            (about 25 min)
    python -m benchmarks.peers RUN --short --out benchmarks/out/peers.json    (about 2 min)

Each peer gets a virtual environment of its own under `--cache` (made when absent, versions pinned
here and in requirements/lock.txt) and answers the same requests with the same ONNX files, encoder
and JSON code (`benchmarks/peer_trio.py`), one worker each, without and with dynamic batching
(8 requests, 1 ms). All servers are up at once and take turns; a peer has no budget, no admission
and no routing to pay for. Because Ray's own processes burden the machine also while a peer has its
turn, each peer is measured once more after Ray has stopped (`alone`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import markdown_table, one_sentence, spread, write_result
from benchmarks.environments import CACHE, ROOT, peer_python
from benchmarks.loads import (
    FULL,
    SHORT,
    Bench,
    Plan,
    Profile,
    arguments,
    summaries,
    summarise,
    variant_configs,
)
from dynens.bundle import load_bundle
from dynens.report.console import number
from serving.client import open_directly, wait_ready
from serving.environment import free_port
from serving.replay import open_run_data, request_bodies
from serving.server import running_variants

PEERS = {"mosec": "mosec==0.9.8", "litserve": "litserve==0.2.19"}
# What dynens's engine and codecs import, and the event loop that both peers prefer.
BASE = ("numpy", "onnxruntime", "pyarrow", "pydantic", "pyyaml", "orjson", "uvloop", "httptools")
OURS: dict[str, dict[str, Any]] = {
    "static": {"system": "ensemble"},
    "dynamic": {"system": "dynamic"},
    "student": {"system": "student"},
}
MAX_BATCH = 8
MIN_RATE_QPS = 10.0
ROWS, _BODIES = 100, 500
_READY_TIMEOUT_S, _STOP_TIMEOUT_S = 60.0, 5.0


@dataclass(frozen=True)
class Server:
    """A peer with one setting of its batching."""

    peer: str
    max_batch: int
    port: int

    @property
    def name(self) -> str:
        return self.peer if self.max_batch == 1 else f"{self.peer}_batch"


@contextmanager
def running_peer(server: Server, python: Path, run: Path, path: str, body: bytes) -> Iterator[str]:
    """A peer's server, ready to answer; gives its address."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "DYNENS_BUNDLE": str(run.resolve()),
        "DYNENS_PATH": path,
        "DYNENS_PORT": str(server.port),
        "DYNENS_MAX_BATCH": str(server.max_batch),
        "MOSEC_ADDRESS": "127.0.0.1",
        "MOSEC_PORT": str(server.port),
        "MOSEC_LOG_LEVEL": "warning",
    }
    log = python.parents[1] / f"{server.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(python), "-m", f"benchmarks.peer_{server.peer}"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{server.port}{path}"
    try:
        if not wait_ready(_asking(url, body), process, timeout_s=_READY_TIMEOUT_S):
            raise SystemExit(f"{server.name} does not answer; see {log}.")
        yield url
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group: LitServe's children outlive their parent's SIGTERM."""
    os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_TIMEOUT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _asking(url: str, body: bytes) -> urllib.request.Request:
    return urllib.request.Request(url, body, {"Content-Type": "application/json"})


def _post(url: str, body: bytes) -> Any:
    with open_directly(_asking(url, body), 5) as answer:
        return json.loads(answer.read())


def measure(run: Path, plan: Plan, servers: list[Server], cache: Path, start: float) -> Any:
    """Peaks, latencies at a common rate, and the peers alone, as JSON values."""
    bundle = load_bundle(run)
    path, bodies = request_bodies(open_run_data(run), ROWS, _BODIES)
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    pythons = {server.peer: peer_python(cache, PEERS[server.peer], BASE) for server in servers}
    with ExitStack() as stack:
        urls = {
            server.name: stack.enter_context(
                running_peer(server, pythons[server.peer], run, path, bodies[0])
            )
            for server in servers
        }
        configs = variant_configs(OURS, plan.budget_ms)
        with running_variants(bundle, "127.0.0.1", port, configs):
            ours = {name: f"{base}/{name}{path}" for name in OURS}
            profiles = {
                name: Profile(url, ROWS, bodies, read_answers=name in ours)
                for name, url in {**ours, **urls}.items()
            }
            agreement = {
                name: largest_difference(_post(ours["static"], bodies[0]), _post(url, bodies[0]))
                for name, url in urls.items()
            }
            bench = Bench(profiles, plan)
            bench.warm_up()
            peaks = bench.peaks(list(profiles), start)
            rate = common_rate({name: peaks[name] for name in ("static", *urls)})
            samples = bench.interleave(dict.fromkeys(profiles, rate))
        alone = bench.interleave(dict.fromkeys(urls, rate))
    return {
        "run": run.name,
        "bundle_version": bundle.version,
        "budget_ms": plan.budget_ms,
        "versions": PEERS,
        "rows_per_request": ROWS,
        "largest_difference_of_probability": agreement,
        "peaks_qps": peaks,
        "rate_qps": rate,
        **summaries(samples),
        "alone": {name: summarise(results) for name, results in alone.items()},
        "trials": bench.trials,
    }


def largest_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """Between two answers' probabilities, item by item."""
    a, b = ({i["item"]: i["probability"] for i in answer["items"]} for answer in (ours, theirs))
    if a.keys() != b.keys():
        raise SystemExit("two servers answered with different items.")
    return float(max(abs(a[item] - b[item]) for item in a))


def common_rate(peaks: Mapping[str, float]) -> float:
    """Half of the lowest peak, but enough for percentiles: at least `MIN_RATE_QPS`."""
    return max(min(peaks.values()) / 2, MIN_RATE_QPS)


def markdown(result: Mapping[str, Any]) -> str:
    """Peaks and latencies of all servers, and where dynens's static trio loses."""
    rows = []
    for name, row in result["latency"].items():
        alone = result["alone"].get(name)
        rows.append(
            [
                name.replace("_", " + "),
                f"{result['peaks_qps'][name]:.0f}",
                spread(row["p50_ms"]),
                spread(row["p99_ms"]),
                "–" if alone is None else number(alone["p50_ms"][0], 2),
                "–" if alone is None else number(alone["p99_ms"][0], 2),
            ]
        )
    rate = f"{result['rate_qps']:.0f}/s"
    columns = ["server", "peak per s", f"p50 ms at {rate}", f"p99 ms at {rate}"]
    columns += ["p50 alone", "p99 alone"]
    versions = ", ".join(result["versions"].values())
    difference = max(result["largest_difference_of_probability"].values())
    return (
        f"{markdown_table(columns, rows)}\n\n"
        f"{versions}; one worker each; {result['rows_per_request']} candidates per request; p99 "
        f"within {result['budget_ms']:g} ms. Median (smallest–largest round). `alone`: the peer "
        f"after Ray has stopped. Rows of a batch have no context in common, so batching servers "
        f"score them as full rows. Answers agree within {difference:.1g}.\n\n{verdict(result)}"
    )


def verdict(result: Mapping[str, Any]) -> str:
    """One line per peer: the static trio's peak and latencies over the peer's best setting."""
    lines = []
    for peer in result["versions"]:
        settings = [name for name in (peer, f"{peer}_batch") if name in result["latency"]]
        best = max(settings, key=lambda name: result["peaks_qps"][name])
        parts = []
        if theirs := result["peaks_qps"][best]:
            parts.append(_compared("peak", result["peaks_qps"]["static"], theirs, more_wins=True))
        for key in ("p50_ms", "p99_ms"):
            a, b = (result["latency"][name][key][0] for name in ("static", best))
            if a is not None and b is not None:
                parts.append(_compared(key.removesuffix("_ms"), a, b, more_wins=False))
        lines.append(f"- Static trio against {best.replace('_', ' + ')}: {', '.join(parts)}.")
    return "\n".join(lines)


def _compared(what: str, ours: float, theirs: float, *, more_wins: bool) -> str:
    ratio = ours / theirs
    wins = ratio >= 1 if more_wins else ratio <= 1
    return f"{what} × {ratio:.2f} ({'not worse' if wins else 'we lose'})"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE, help="environments")
    parser.add_argument("--start-qps", type=float, default=50.0, help="first rate of a search")
    options = parser.parse_args()
    batches = (1,) if options.short else (1, MAX_BATCH)
    servers = [Server(peer, batch, free_port()) for peer in PEERS for batch in batches]
    plan = SHORT if options.short else FULL
    with one_sentence():
        result = measure(options.run, plan, servers, options.cache, options.start_qps)
    write_result(options.out, result)
    print(markdown(result))


if __name__ == "__main__":
    main()
