"""What the serving benchmarks share: open-loop load on several servers in turns, summaries."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import median_and_range
from dynens.config.serving import ServingConfig
from serving.loadtest import (
    LoadOptions,
    LoadResult,
    PeakSearch,
    keeps_promise,
    peak_search,
    send_load,
    trial_seconds,
)

# Settings of a server by what a table calls it.
VARIANTS: dict[str, dict[str, Any]] = {
    "student": {"system": "student"},
    "dynamic": {"system": "dynamic"},
    "static": {"system": "ensemble"},
}
SUMMARISED = ("p50_ms", "p95_ms", "p99_ms", "p999_ms", "achieved_qps", "error_rate")
BUDGET_MS = 8.0
# k6 refuses less than a second.
_WARM_UP_QPS, _WARM_UP_S = 50.0, 1.0


@dataclass(frozen=True)
class Profile:
    """One kind of request to one address.

    Attributes:
        url: posted to.
        rows: candidates of a request.
        bodies: distinct requests.
        read_answers: count hard rows in the answers; off where answers hold none.
    """

    url: str
    rows: int
    bodies: list[bytes]
    read_answers: bool = True


@dataclass(frozen=True)
class Plan:
    """How long everything takes.

    Attributes:
        budget_ms: what p99 must stay within.
        trial_s: seconds of one trial of a peak search.
        resolve_errors: make a trial longer where the rate is low, so that a single refusal stays
            within the error rate of the promise.
        measure_s: seconds of one measurement.
        repeats: rounds of measurements.
        searches: of the peaks that are compared; hiccups of the machine move a single one.
        precision: of a peak, as ratio of refused to accepted rate − 1.
    """

    budget_ms: float
    trial_s: float
    resolve_errors: bool
    measure_s: float
    repeats: int
    searches: int
    precision: float


# The short form shows that everything runs and roughly where it stands: peaks to a factor of two.
SHORT = Plan(
    BUDGET_MS,
    trial_s=1.5,
    resolve_errors=False,
    measure_s=2,
    repeats=2,
    searches=1,
    precision=1.0,
)
FULL = Plan(
    BUDGET_MS,
    trial_s=4,
    resolve_errors=True,
    measure_s=5,
    repeats=5,
    searches=3,
    precision=0.1,
)


class Bench:
    """Sends load to profiles by their names and remembers the trials of peak searches."""

    def __init__(self, profiles: Mapping[str, Profile], plan: Plan) -> None:
        self.profiles = profiles
        self.plan = plan
        self.trials: list[dict[str, Any]] = []

    def send(self, name: str, rate: float, seconds: float) -> LoadResult:
        """One load, with a line of progress."""
        profile = self.profiles[name]
        options = LoadOptions(read_answers=profile.read_answers)
        result = send_load(profile.url, profile.bodies, rate, seconds, profile.rows, options)
        line = f"{name:<16} rows {profile.rows:<4} {rate:7.1f}/s"
        line += f"  p50 {result.p50_ms:6.2f}  p99 {result.p99_ms:7.2f}"
        line += f"  errors {result.error_rate:.2%}  granted {result.granted_share:.1%}"
        print(line, file=sys.stderr, flush=True)
        return result

    def warm_up(self) -> None:
        """A little load on every profile; discarded."""
        for name in self.profiles:
            self.send(name, _WARM_UP_QPS, _WARM_UP_S)

    def peaks(
        self, names: Sequence[str], start_qps: float, *, elastic: bool = False
    ) -> dict[str, float]:
        """Peak rates of several profiles, searched in alternating trials."""
        searches: dict[str, PeakSearch] = {
            name: peak_search(start_qps, precision=self.plan.precision) for name in names
        }
        rates = {name: next(search) for name, search in searches.items()}
        found: dict[str, float] = {}
        while rates:
            for name, rate in list(rates.items()):
                seconds = self.plan.trial_s
                if self.plan.resolve_errors:
                    seconds = trial_seconds(rate, seconds)
                result = self.send(name, rate, seconds)
                kept = keeps_promise(result, self.plan.budget_ms, elastic=elastic)
                self.trials.append({"profile": name, "kept": kept, **result.to_dict()})
                try:
                    rates[name] = searches[name].send(kept)
                except StopIteration as stop:
                    found[name] = stop.value
                    del rates[name]
        return found

    def interleave(self, rates: Mapping[str, float]) -> dict[str, list[LoadResult]]:
        """Every named profile at its rate in turn, several rounds."""
        samples: dict[str, list[LoadResult]] = {name: [] for name in rates}
        for _ in range(self.plan.repeats):
            for name, rate in rates.items():
                samples[name].append(self.send(name, rate, self.plan.measure_s))
        return samples


def summarise(results: Sequence[LoadResult]) -> dict[str, Any]:
    """Median over the rounds, with the smallest and largest round."""
    summary: dict[str, Any] = {
        name: median_and_range([getattr(r, name) for r in results]) for name in SUMMARISED
    }
    summary["granted_share"] = min(r.granted_share for r in results)
    summary["hard_share"] = statistics.median(r.hard_share for r in results)
    return summary


def summaries(samples: Mapping[str, Sequence[LoadResult]]) -> dict[str, Any]:
    """`latency` (summaries) and `samples` (every round) as JSON values."""
    return {
        "latency": {name: summarise(results) for name, results in samples.items()},
        "samples": {name: [r.to_dict() for r in results] for name, results in samples.items()},
    }


def variant_configs(
    variants: Mapping[str, Mapping[str, Any]], budget_ms: float
) -> dict[str, ServingConfig]:
    """One server's settings per variant."""
    return {
        name: ServingConfig.model_validate({"latency_budget_ms": budget_ms, **settings})
        for name, settings in variants.items()
    }


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """What every serving benchmark takes on its command line."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--short", action="store_true", help="few and short trials")
    return parser
