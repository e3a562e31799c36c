"""Latency of four request profiles and peak rates, over the no-op floor of the same run.

Usage: python -m benchmarks.serving RUN --out benchmarks/out/serving.json          (about 25 min)
       python -m benchmarks.serving RUN --short --out benchmarks/out/serving.json  (about 4 min)

All variants live under one Ray and one HAProxy, one replica each, and take turns: A, B, C, A, B, C…
Load is open loop (k6, constant arrival rate), candidate sets as described in serving/replay.py.
Latencies are the client's. A peak is the highest rate with p99 within the budget, at most 0.1 %
errors and at least 99 % of the hard rows answered by the ensemble; the elastic peak lets the hard
share shrink, and the AUC it delivers stands beside it. The two peaks that are compared, dynamic
and static trio, are searched in alternating trials.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynens.bundle import load_bundle
from dynens.config.serving import ServingConfig
from dynens.engine import Engine
from dynens.metrics import auc
from dynens.run import environment
from serving.environment import free_port
from serving.loadtest import (
    LoadOptions,
    LoadResult,
    PeakSearch,
    keeps_promise,
    peak_search,
    send_load,
)
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


@dataclass(frozen=True)
class Profile:
    """One kind of request against one variant."""

    variant: str
    rows: int
    bodies: list[bytes]
    path: str


@dataclass(frozen=True)
class Plan:
    """How long everything takes."""

    budget_ms: float
    trial_s: float
    measure_s: float
    repeats: int
    precision: float


class Bench:
    """Sends load to the variants of one server."""

    def __init__(self, url: str, plan: Plan) -> None:
        self.url = url
        self.plan = plan
        self.trials: list[dict[str, Any]] = []

    def send(self, profile: Profile, rate: float, seconds: float) -> LoadResult:
        options = LoadOptions(read_answers=profile.variant != "noop")
        url = f"{self.url}/{profile.variant}{profile.path}"
        result = send_load(url, profile.bodies, rate, seconds, profile.rows, options)
        line = f"{profile.variant:>9} rows {profile.rows:<4} {rate:7.0f}/s"
        line += f"  p50 {result.p50_ms:6.2f}  p99 {result.p99_ms:7.2f}"
        line += f"  errors {result.error_rate:.2%}  granted {result.granted_share:.1%}"
        print(line, file=sys.stderr, flush=True)
        return result

    def peaks(
        self, profiles: Mapping[str, Profile], start_qps: float, *, elastic: bool = False
    ) -> dict[str, float]:
        """Peak rates of several profiles, searched in alternating trials."""
        searches: dict[str, PeakSearch] = {
            name: peak_search(start_qps, precision=self.plan.precision) for name in profiles
        }
        rates = {name: next(search) for name, search in searches.items()}
        found: dict[str, float] = {}
        while rates:
            for name, rate in list(rates.items()):
                result = self.send(profiles[name], rate, self.plan.trial_s)
                kept = keeps_promise(result, self.plan.budget_ms, elastic=elastic)
                self.trials.append({"profile": name, "kept": kept, **result.to_dict()})
                try:
                    rates[name] = searches[name].send(kept)
                except StopIteration as stop:
                    found[name] = stop.value
                    del rates[name]
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--short", action="store_true", help="few and short trials")
    parser.add_argument("--budget-ms", type=float, default=8.0)
    parser.add_argument("--start-qps", type=float, default=100.0, help="first rate of a search")
    options = parser.parse_args()
    if options.short:
        plan = Plan(options.budget_ms, trial_s=3, measure_s=4, repeats=2, precision=0.3)
    else:
        plan = Plan(options.budget_ms, trial_s=8, measure_s=15, repeats=5, precision=0.07)
    result = measure(options.run, plan, options.start_qps)
    result |= {"command": sys.argv, "machine": environment()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(table(result))


def measure(run: Path, plan: Plan, start_qps: float) -> dict[str, Any]:
    """Everything, as JSON values."""
    bundle = load_bundle(run)
    profiles, facts = make_profiles(run)
    configs = {
        name: ServingConfig.model_validate({"latency_budget_ms": plan.budget_ms, **settings})
        for name, settings in VARIANTS.items()
    }
    with running_variants(bundle, "127.0.0.1", free_port(), configs) as up:
        bench = Bench(up.url, plan)
        for profile in profiles.values():
            bench.send(profile, 50, 1)  # warm-up, discarded
        compared = {name: profiles[name] for name in ("default_100", "static_100")}
        peaks = bench.peaks(compared, start_qps)
        others = {n: p for n, p in profiles.items() if n not in compared and n != "noop_1"}
        peaks |= bench.peaks(others, start_qps)
        elastic = bench.peaks({"default_100": profiles["default_100"]}, start_qps, elastic=True)
        rates = {name: max(peaks.get(name, peaks["noop_100"]) / 2, 1.0) for name in profiles}
        # The floor is measured at the rate of the profile that it stands beside.
        rates["noop_100"] = rates["student_100"]
        rates["noop_1"] = rates["one_easy"]
        samples = interleave(bench, profiles, rates)
        peak = max(elastic["default_100"], 1.0)
        overload = bench.send(profiles["default_100"], 2 * peak, plan.measure_s)
        recovery = bench.send(profiles["default_100"], peak / 2, plan.measure_s)
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
        "dynamic_over_static": _ratio(peaks["default_100"], peaks["static_100"]),
        "elastic_peak_qps": elastic["default_100"],
        "at_twice_the_peak": overload.to_dict(),
        "right_after": recovery.to_dict(),
        "elastic_auc_at_granted_share": delivered,
        "rates_qps": rates,
        "latency": {name: summarise(results) for name, results in samples.items()},
        "samples": {name: [r.to_dict() for r in results] for name, results in samples.items()},
        "trials": bench.trials,
    }


def make_profiles(run: Path) -> tuple[dict[str, Profile], dict[str, Any]]:
    """The requests of each profile, and what they hold."""
    prepared = open_run_data(run)
    engine = Engine.load(run)
    path, hundred = request_bodies(prepared, 100, _BODIES)
    single_path, singles = request_bodies(prepared, 1, 4 * _BODIES)
    hard = [_is_hard(engine, single_path, body) for body in singles]
    easy_bodies = [b for b, h in zip(singles, hard, strict=True) if not h][:_BODIES]
    hard_bodies = [b for b, h in zip(singles, hard, strict=True) if h][:_BODIES]
    profiles = {
        "noop_1": Profile("noop", 1, singles[:_BODIES], single_path),
        "noop_100": Profile("noop", 100, hundred, path),
        "student_100": Profile("student", 100, hundred, path),
        "default_100": Profile("dynamic", 100, hundred, path),
        "all_hard_100": Profile("all_hard", 100, hundred, path),
        "static_100": Profile("static", 100, hundred, path),
    }
    if easy_bodies:
        profiles["one_easy"] = Profile("dynamic", 1, easy_bodies, single_path)
    if hard_bodies:
        profiles["one_hard"] = Profile("dynamic", 1, hard_bodies, single_path)
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


def interleave(
    bench: Bench, profiles: Mapping[str, Profile], rates: Mapping[str, float]
) -> dict[str, list[LoadResult]]:
    """Every profile in turn, several rounds."""
    samples: dict[str, list[LoadResult]] = {name: [] for name in profiles}
    for _ in range(bench.plan.repeats):
        for name, profile in profiles.items():
            samples[name].append(bench.send(profile, rates[name], bench.plan.measure_s))
    return samples


def summarise(results: list[LoadResult]) -> dict[str, Any]:
    """Median over the rounds, with the smallest and largest round."""
    summary: dict[str, Any] = {}
    for name in ("p50_ms", "p95_ms", "p99_ms", "p999_ms", "achieved_qps", "error_rate"):
        values = [getattr(r, name) for r in results]
        summary[name] = [statistics.median(values), min(values), max(values)]
    summary["granted_share"] = min(r.granted_share for r in results)
    summary["hard_share"] = statistics.median(r.hard_share for r in results)
    return summary


def auc_at(run: Path, granted_share: float) -> float:
    """Test AUC when only the hardest `granted_share` of the hard rows get the ensemble."""
    engine = Engine.load(run)
    test = open_run_data(run).split("test")
    assert test.labels is not None
    (difficulty,) = engine.student.run(("difficulty",), test.dense, test.ids)
    hard = difficulty[difficulty > engine.threshold]
    limit = float(np.quantile(hard, 1 - granted_share)) if len(hard) else NEVER
    probability = engine.score(test, threshold=max(limit, engine.threshold)).probability
    return float(auc(test.labels, probability))


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None


def table(result: Mapping[str, Any]) -> str:
    """The figures as text."""
    lines = [f"{'profile':<14}{'peak/s':>8}{'rate/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'p99.9':>9}"]
    for name, row in result["latency"].items():
        peak = result["peaks_qps"].get(name, float("nan"))
        lines.append(
            f"{name:<14}{peak:8.0f}{result['rates_qps'][name]:8.0f}"
            f"{row['p50_ms'][0]:9.2f}{row['p99_ms'][0]:9.2f}{row['p999_ms'][0]:9.2f}"
        )
    ratio = result["dynamic_over_static"]
    if ratio is not None:
        lines.append(f"peak, dynamic over static trio: {ratio:.2f}")
    share = result["requests"]["hard_share_of_candidates"]
    lines.append(
        f"elastic peak: {result['elastic_peak_qps']:.0f}/s, granted share and AUC there: "
        f"{result['elastic_auc_at_granted_share']}"
    )
    lines.append(f"hard share of the candidates: {share:.1%}, path {result['requests']['path']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
