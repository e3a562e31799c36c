"""Latency of four request profiles and peak rates, over the no-op floor of the same run.

Usage: python -m benchmarks.serving RUN --out benchmarks/out/serving.json          (about 25 min)
       python -m benchmarks.serving RUN --short --out benchmarks/out/serving.json  (about 3 min)

All variants live under one Ray and one HAProxy, one replica each, and take turns: A, B, C, A, B, C…
Load is open loop (k6, constant arrival rate), candidate sets as described in serving/replay.py.
Latencies are the client's. A peak is the highest rate with p99 within the budget, at most 0.1 %
errors and at least 99 % of the hard rows answered by the ensemble; the elastic peak lets the hard
share shrink, and the AUC it delivers stands beside it. The two peaks that are compared, dynamic
and static trio, are searched three times in alternating trials; the median counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import one_sentence, percent, write_result
from benchmarks.loads import (
    BUDGET_MS,
    FULL,
    SHORT,
    Bench,
    Plan,
    Profile,
    arguments,
    summaries,
    variant_configs,
)
from dynens.bundle import load_bundle
from dynens.engine import Engine
from dynens.metrics import auc
from dynens.report.console import number
from serving.environment import free_port
from serving.replay import open_run_data, request_bodies
from serving.server import running_variants

NEVER, ALWAYS = float("inf"), float("-inf")
VARIANTS: dict[str, dict[str, Any]] = {
    "student": {"system": "student"},
    "dynamic": {"system": "dynamic"},
    "all_hard": {"system": "dynamic", "threshold": ALWAYS},
    "static": {"system": "ensemble"},
}
_BODIES = 500


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--budget-ms", type=float, default=BUDGET_MS)
    parser.add_argument("--start-qps", type=float, default=100.0, help="first rate of a search")
    options = parser.parse_args()
    plan = replace(SHORT if options.short else FULL, budget_ms=options.budget_ms)
    with one_sentence():
        result = measure(options.run, plan, options.start_qps)
    write_result(options.out, result)
    print(table(result))


def measure(run: Path, plan: Plan, start_qps: float) -> dict[str, Any]:
    """Everything, as JSON values."""
    bundle = load_bundle(run)
    port = free_port()
    profiles, facts = make_profiles(run, f"http://127.0.0.1:{port}")
    configs = variant_configs(VARIANTS, plan.budget_ms)
    with running_variants(bundle, "127.0.0.1", port, configs) as up:
        bench = Bench(profiles, plan)
        bench.warm_up()
        compared = ("default_100", "static_100")
        searches = [bench.peaks(compared, start_qps) for _ in range(plan.searches)]
        peaks = {name: statistics.median(s[name] for s in searches) for name in compared}
        others = [n for n in profiles if n not in compared and n != "noop_1"]
        peaks |= bench.peaks(others, start_qps)
        elastic = bench.peaks(["default_100"], start_qps, elastic=True)
        rates = {name: max(peaks.get(name, peaks["noop_100"]) / 2, 1.0) for name in profiles}
        # The floor is measured at the rate of the profile that it stands beside.
        rates["noop_100"] = rates["student_100"]
        rates["noop_1"] = rates.get("one_easy", rates["noop_1"])
        samples = bench.interleave(rates)
        peak = max(elastic["default_100"], 1.0)
        overload = bench.send("default_100", 2 * peak, plan.measure_s)
        recovery = bench.send("default_100", peak / 2, plan.measure_s)
    delivered = {
        trial["granted_share"]: auc_at(run, trial["granted_share"])
        for trial in bench.trials
        if trial["profile"] == "default_100" and trial["offered_qps"] == elastic["default_100"]
    }
    return {
        "run": run.name,
        "bundle_version": bundle.version,
        "ready_s": up.ready_s,
        "budget_ms": plan.budget_ms,
        "requests": facts,
        "peaks_qps": peaks,
        "compared_peaks_qps": {name: [s[name] for s in searches] for name in compared},
        "elastic_peak_qps": elastic["default_100"],
        "at_twice_the_peak": overload.to_dict(),
        "right_after": recovery.to_dict(),
        "elastic_auc_at_granted_share": delivered,
        "rates_qps": rates,
        **summaries(samples),
        "trials": bench.trials,
    }


def make_profiles(run: Path, base: str) -> tuple[dict[str, Profile], dict[str, Any]]:
    """The requests of each profile, and what they hold."""
    prepared = open_run_data(run)
    engine = Engine.load(run)
    path, hundred = request_bodies(prepared, 100, _BODIES)
    single_path, singles = request_bodies(prepared, 1, 4 * _BODIES)
    hard = [_is_hard(engine, single_path, body) for body in singles]
    easy_bodies = [b for b, h in zip(singles, hard, strict=True) if not h][:_BODIES]
    hard_bodies = [b for b, h in zip(singles, hard, strict=True) if h][:_BODIES]
    profiles = {
        "noop_1": Profile(f"{base}/noop{single_path}", 1, singles[:_BODIES], read_answers=False),
        "noop_100": Profile(f"{base}/noop{path}", 100, hundred, read_answers=False),
        "student_100": Profile(f"{base}/student{path}", 100, hundred),
        "default_100": Profile(f"{base}/dynamic{path}", 100, hundred),
        "all_hard_100": Profile(f"{base}/all_hard{path}", 100, hundred),
        "static_100": Profile(f"{base}/static{path}", 100, hundred),
    }
    if easy_bodies:
        profiles["one_easy"] = Profile(f"{base}/dynamic{single_path}", 1, easy_bodies)
    if hard_bodies:
        profiles["one_hard"] = Profile(f"{base}/dynamic{single_path}", 1, hard_bodies)
    share = float(np.mean([_hard_share(engine, path, body) for body in hundred[:100]]))
    return profiles, {"path": path, "hard_share_of_candidates": share}


def _scores(engine: Engine, path: str, body: bytes) -> Any:
    """Score a request body without a server."""
    from dynens.config.serving import LimitsConfig
    from serving.codecs import CODECS, Model

    model, codec = Model.of(engine), CODECS[path]
    request = codec.parse(body, {}, model, LimitsConfig())
    return engine.score(codec.encode(request, model))


def _is_hard(engine: Engine, path: str, body: bytes) -> bool:
    return bool(_scores(engine, path, body).hard_wanted)


def _hard_share(engine: Engine, path: str, body: bytes) -> float:
    scores = _scores(engine, path, body)
    share: float = scores.hard_wanted / len(scores.route)
    return share


def auc_at(run: Path, granted_share: float) -> float:
    """Test AUC when only the hardest `granted_share` of the hard rows get the ensemble."""
    engine = Engine.load(run)
    test = open_run_data(run).split("test")
    assert test.labels is not None
    (difficulty,) = engine.student.run(("difficulty",), test.dense, test.ids)
    hard = difficulty[difficulty > engine.threshold]
    limit = float(np.quantile(hard, 1 - granted_share)) if len(hard) else NEVER
    probability = engine.score(test, threshold=max(limit, engine.threshold)).probability
    return float(auc(test.labels, probability, test.sample_weight))


def table(result: Mapping[str, Any]) -> str:
    """The figures as text."""
    lines = [f"{'profile':<14}{'peak/s':>8}{'rate/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'p99.9':>9}"]
    for name, row in result["latency"].items():
        peak = result["peaks_qps"].get(name, float("nan"))
        lines.append(
            f"{name:<14}{peak:8.0f}{result['rates_qps'][name]:8.0f}"
            + "".join(f"{number(row[key][0], 2):>9}" for key in ("p50_ms", "p99_ms", "p999_ms"))
        )
    dynamic, static = result["compared_peaks_qps"].values()
    ratios = [a / b for a, b in zip(dynamic, static, strict=True) if b]
    if ratios:
        lines.append(
            f"peak, dynamic over static trio: {statistics.median(ratios):.2f} (searches: "
            + ", ".join(f"{a:.0f}/{b:.0f}" for a, b in zip(dynamic, static, strict=True))
            + ")"
        )
    for key, words in (
        ("at_twice_the_peak", "twice the elastic peak"),
        ("right_after", "after it"),
    ):
        load = result[key]
        errors = ", ".join(f"{n} × {status}" for status, n in sorted(load["errors"].items()))
        lines.append(
            f"{words}, {load['offered_qps']:.0f}/s for {load['duration_s']:.0f} s: answered "
            f"{load['achieved_qps']:.0f}/s, {errors or 'no errors'}, {load['late']} late at the "
            f"client, {percent(load['granted_share'])} of hard rows granted"
        )
    share = result["requests"]["hard_share_of_candidates"]
    lines.append(
        f"elastic peak: {result['elastic_peak_qps']:.0f}/s, AUC there by share of hard rows "
        "granted: "
        + ", ".join(
            f"{number(auc_there, 4)} at {float(granted):.0%}"
            for granted, auc_there in result["elastic_auc_at_granted_share"].items()
        )
    )
    lines.append(f"hard share of the candidates: {share:.1%}, path {result['requests']['path']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
