"""Latency over the number of candidates, and Ray's default proxy against HAProxy.

    python -m benchmarks.sizes RUN --out benchmarks/out/sizes.json            (about 27 min)
    python -m benchmarks.sizes RUN --short --out benchmarks/out/sizes.json    (about 2 min)

Student alone, dynamic and static trio take turns at 1, 10, 100 and 500 candidates per request, all
at one low rate, so that this is service time and not queueing. The budget is wide open
(`--budget-ms`), so that every hard row is answered by the ensemble and no answer comes for free.
The proxy is compared at 100 candidates: Ray Serve's default proxy (its own proxy process, no
throughput settings) in a server of its own, right after the one with HAProxy and direct ingress.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import markdown_table, one_sentence, spread, write_result
from benchmarks.loads import (
    FULL,
    SHORT,
    VARIANTS,
    Bench,
    Profile,
    arguments,
    summaries,
    variant_configs,
)
from dynens.bundle import load_bundle
from dynens.report.console import number
from serving.environment import free_port
from serving.replay import open_run_data, request_bodies
from serving.server import running_variants

SIZES = (1, 10, 100, 500)
PROXY_ROWS = 100
# What `serving/environment.py` sets for HAProxy, taken back: Ray Serve's defaults.
PROXIES: dict[str, dict[str, str]] = {
    "haproxy": {},
    "ray": {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0"},
}
_BODIES = 300


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All variants at all sizes behind one proxy, as JSON values."""
    plan = replace(SHORT, repeats=1) if options.short else FULL
    plan = replace(plan, budget_ms=options.budget_ms)
    bundle, prepared = load_bundle(options.run), open_run_data(options.run)
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    profiles: dict[str, Profile] = {}
    for rows in options.sizes:
        path, bodies = request_bodies(prepared, rows, _BODIES)
        noop = f"{base}/noop{path}"
        profiles[profile_name("noop", rows)] = Profile(noop, rows, bodies, read_answers=False)
        for name in VARIANTS:
            profiles[profile_name(name, rows)] = Profile(f"{base}/{name}{path}", rows, bodies)
    configs = variant_configs(VARIANTS, plan.budget_ms)
    environment = PROXIES[options.proxy]
    with running_variants(bundle, "127.0.0.1", port, configs, environment) as up:
        bench = Bench(profiles, plan)
        bench.warm_up()
        samples = bench.interleave(dict.fromkeys(profiles, options.rate))
    return {
        "run": options.run.name,
        "bundle_version": bundle.version,
        "proxy": options.proxy,
        "ready_s": up.ready_s,
        "rate_qps": options.rate,
        "budget_ms": plan.budget_ms,
        "sizes": list(options.sizes),
        **summaries(samples),
    }


def profile_name(variant: str, rows: int) -> str:
    return f"{variant}_{rows}"


def other_proxy(options: argparse.Namespace) -> dict[str, Any]:
    """The same behind Ray's own proxy, in a process of its own: Ray reads its settings once."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "ray.json"
        command = [sys.executable, "-m", "benchmarks.sizes", str(options.run), "--proxy", "ray"]
        command += ["--sizes", str(PROXY_ROWS), "--out", str(out), "--rate", str(options.rate)]
        command += ["--budget-ms", str(options.budget_ms), *(["--short"] if options.short else [])]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    del found["command"], found["machine"]
    return found


def markdown(result: Mapping[str, Any]) -> str:
    """p50 and p99 by size, then by proxy."""
    names = ("noop", *VARIANTS)
    rows = []
    for size in result["sizes"]:
        found = [result["latency"][profile_name(name, size)] for name in names]
        rows.append([str(size), *(_cell(f) for f in found)])
    text = markdown_table(["candidates", *names], rows)
    text += (
        "\n\np50 (smallest–largest round, where there were several); p99, in ms at the client, "
        f"{result['rate_qps']:g} requests per second."
    )
    if (other := result.get("default_proxy")) is None:
        return text
    both = {"HAProxy": result, "Ray Serve's default proxy": other}
    return f"{text}\n\n{_proxies(both, names)}"


def _cell(figures: Mapping[str, Any]) -> str:
    """p50 with its spread, where several rounds have one, and p99."""
    median, low, high = figures["p50_ms"]
    p50 = number(median, 2) if low == high else spread(figures["p50_ms"])
    return f"{p50}; {number(figures['p99_ms'][0], 2)}"


def _proxies(results: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    rows = []
    for label, result in results.items():
        found = [result["latency"][profile_name(name, PROXY_ROWS)] for name in names]
        rows.append([label, *(_cell(f) for f in found)])
    return markdown_table([f"proxy ({PROXY_ROWS} candidates)", *names], rows)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="candidates")
    parser.add_argument("--proxy", choices=PROXIES, default="haproxy")
    parser.add_argument("--rate", type=float, default=20.0, help="requests per second")
    parser.add_argument("--budget-ms", type=float, default=1000.0, help="wide open by default")
    options = parser.parse_args()
    with one_sentence():
        result = measure(options)
    if options.proxy == "haproxy" and PROXY_ROWS in options.sizes:
        result["default_proxy"] = other_proxy(options)
    write_result(options.out, result)
    print(markdown(result))


if __name__ == "__main__":
    main()
