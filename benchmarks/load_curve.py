"""Latency over offered rate, up to and beyond the knee.

    python -m benchmarks.load_curve RUN --out benchmarks/out/load_curve.json      (about 20 min)
    python -m benchmarks.load_curve RUN --short --out benchmarks/out/load_curve.json (about 1 min)

An application that does nothing, student alone, dynamic and static trio, 100 candidates, open loop.
The rate grows by a constant factor; within a rate the systems take turns, and a system leaves after
two rates in a row at which it broke the promise (p99 within the budget, at most 0.1 % errors, at
least 99 % of the hard rows answered by the ensemble). The whole sweep is repeated. The knee is the
highest rate at which the median round kept the promise before it broke it twice in a row: at low
rates a single refusal among some dozens of requests breaks it.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.common import markdown_table, one_sentence, percent, write_result
from benchmarks.loads import (
    BUDGET_MS,
    FULL,
    SHORT,
    VARIANTS,
    Bench,
    Plan,
    Profile,
    arguments,
    variant_configs,
)
from dynens.bundle import load_bundle
from dynens.report.console import number
from dynens.report.plots import COLOURS
from serving.environment import free_port
from serving.loadtest import MAX_ERROR_RATE, MIN_GRANTED_SHARE, LoadResult, keeps_promise
from serving.replay import open_run_data, request_bodies
from serving.server import running_variants

NOOP = "noop"
# Name in the palette and in the legend.
SHOWN = {
    NOOP: ("baseline", "nothing at all"),
    "student": ("student", "student alone"),
    "dynamic": ("dynamic", "dynamic"),
    "static": ("static_ensemble", "static trio"),
}
ROWS, _BODIES = 100, 500
_MAX_BROKEN, _MAX_QPS = 2, 20_000.0
_MEDIANS = (
    "p50_ms",
    "p99_ms",
    "error_rate",
    "granted_share",
    "achieved_qps",
    "late",
    "duration_s",
)


def sweep(bench: Bench, start_qps: float, factor: float) -> dict[str, list[LoadResult]]:
    """One sweep of every system until it has broken the promise twice in a row."""
    results: dict[str, list[LoadResult]] = {name: [] for name in bench.profiles}
    broken = dict.fromkeys(results, 0)
    rate = start_qps
    while min(broken.values()) < _MAX_BROKEN and rate <= _MAX_QPS:
        for name in [n for n, count in broken.items() if count < _MAX_BROKEN]:
            result = bench.send(name, rate, bench.plan.measure_s)
            results[name].append(result)
            kept = keeps_promise(result, bench.plan.budget_ms)
            broken[name] = 0 if kept else broken[name] + 1
        rate *= factor
    return results


def points(sweeps: Sequence[Sequence[LoadResult]]) -> list[dict[str, Any]]:
    """Per rate the medians over the sweeps that reached it, with the p99 of every one."""
    by_rate: dict[float, list[LoadResult]] = {}
    for results in sweeps:
        for result in results:
            by_rate.setdefault(result.offered_qps, []).append(result)
    return [
        {
            "offered_qps": rate,
            **{key: statistics.median(getattr(r, key) for r in by_rate[rate]) for key in _MEDIANS},
            "p99_rounds_ms": [r.p99_ms for r in by_rate[rate]],
        }
        for rate in sorted(by_rate)
    ]


def knee(curve: Sequence[Mapping[str, Any]], budget_ms: float) -> float:
    """The highest rate that kept the promise before two in a row broke it; 0 where none did.

    Args:
        curve: `points`, in order of their rates.
        budget_ms: what p99 must stay within.
    """
    best, broken = 0.0, 0
    for point in curve:
        is_kept = (
            point["p99_ms"] <= budget_ms
            and point["error_rate"] <= MAX_ERROR_RATE
            and point["granted_share"] >= MIN_GRANTED_SHARE
        )
        broken = 0 if is_kept else broken + 1
        if broken == _MAX_BROKEN:
            break
        best = point["offered_qps"] if is_kept else best
    return best


def measure(run: Path, plan: Plan, start_qps: float, factor: float) -> dict[str, Any]:
    """Curves and knees of all systems, as JSON values."""
    bundle = load_bundle(run)
    path, bodies = request_bodies(open_run_data(run), ROWS, _BODIES)
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    profiles = {NOOP: Profile(f"{base}/{NOOP}{path}", ROWS, bodies, read_answers=False)}
    profiles |= {name: Profile(f"{base}/{name}{path}", ROWS, bodies) for name in VARIANTS}
    configs = variant_configs(VARIANTS, plan.budget_ms)
    with running_variants(bundle, "127.0.0.1", port, configs):
        bench = Bench(profiles, plan)
        bench.warm_up()
        sweeps = [sweep(bench, start_qps, factor) for _ in range(plan.repeats)]
    curves = {name: points([s[name] for s in sweeps]) for name in profiles}
    return {
        "run": run.name,
        "bundle_version": bundle.version,
        "budget_ms": plan.budget_ms,
        "rows_per_request": ROWS,
        "curves": curves,
        "knees_qps": {name: knee(curve, plan.budget_ms) for name, curve in curves.items()},
        "samples": {n: [[r.to_dict() for r in s[n]] for s in sweeps] for n in profiles},
    }


def plot(ax: Axes, result: Mapping[str, Any]) -> None:
    """p50 (dashed) and p99 (solid) over the offered rate, and the budget as reference.

    A dot marks each knee; its rate stands in the legend, where equal knees do not overlap.
    """
    for name, curve in result["curves"].items():
        colour, label = SHOWN[name]
        rates = [p["offered_qps"] for p in curve]
        at_knee = [p for p in curve if p["offered_qps"] == result["knees_qps"][name]]
        knee = f" (knee {result['knees_qps'][name]:.0f}/s)" if at_knee else ""
        for key, style in (("p99_ms", "-"), ("p50_ms", "--")):
            ax.plot(
                rates,
                [p[key] for p in curve],
                style,
                color=COLOURS[colour],
                linewidth=1.5 if style == "-" else 1,
                label=f"{label}, p99{knee}" if style == "-" else f"{label}, p50",
            )
        for point in at_knee:
            ax.plot(point["offered_qps"], point["p99_ms"], "o", color=COLOURS[colour])
    budget = result["budget_ms"]
    ax.axhline(budget, color="#333333", linestyle=":", linewidth=1, label=f"budget {budget:g} ms")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylim(0, 3 * budget)
    ax.set_xlabel(f"offered requests per second ({result['rows_per_request']} candidates each)")
    ax.set_ylabel("latency at the client (ms)")
    ax.legend(fontsize=8, frameon=False, loc="upper left")


def markdown(result: Mapping[str, Any]) -> str:
    """The knees, with latencies there."""
    rows = []
    for name, curve in result["curves"].items():
        rate = result["knees_qps"][name]
        at = next((p for p in curve if p["offered_qps"] == rate), None)
        cells = ["–", "–"] if at is None else [number(at[key], 2) for key in ("p50_ms", "p99_ms")]
        beyond = min((p["offered_qps"] for p in curve if p["offered_qps"] > rate), default=None)
        above = "–" if beyond is None else f"{beyond:.0f}"
        rows.append([SHOWN[name][1], f"{rate:.0f}", above, *cells])
    columns = [
        "system",
        "knee, requests/s",
        "next rate tried",
        "p50 ms at the knee",
        "p99 ms at the knee",
    ]
    table = markdown_table(columns, rows)
    beyond_table = markdown_table(
        ["system", "offered, requests/s", "in time, per s", "late, per s", "hard rows granted"],
        [
            [SHOWN[name][1], f"{p['offered_qps']:.0f}", *_answers(p)]
            for name, curve in result["curves"].items()
            for p in curve
            if p["offered_qps"] > result["knees_qps"][name]
        ],
    )
    return (
        f"{table}\n\n{over_the_floor(result)}Beyond the knee, as the client sees it (all others "
        f"were refused, with 503 or 504, or found no connection):\n\n{beyond_table}\n\n"
        "The knee is the highest offered rate at which p99 stayed within "
        f"{result['budget_ms']:g} ms, errors within 0.1 % and at least 99 % of the hard rows were "
        "answered by the ensemble, before two rates in a row at which they did not."
    )


def over_the_floor(result: Mapping[str, Any]) -> str:
    """The student beside the application that does nothing, rate by rate, where both were sent."""
    floor = {p["offered_qps"]: p for p in result["curves"].get(NOOP, ())}
    knee_qps = min(result["knees_qps"].get(NOOP, 0.0), result["knees_qps"]["student"])
    rows = []
    for point in result["curves"]["student"]:
        rate = point["offered_qps"]
        if rate not in floor or rate > knee_qps:
            continue
        pairs = [(point[key], floor[rate][key]) for key in ("p50_ms", "p99_ms")]
        if None in itertools.chain(*pairs):  # nothing was answered
            continue
        times = [f"{low:.2f} / {mine:.2f} ({mine - low:+.2f})" for mine, low in pairs]
        rows.append([f"{rate:.0f}", *times])
    if not rows:
        return ""
    columns = ["offered, requests/s", "p50 ms: nothing / student", "p99 ms: nothing / student"]
    return f"The student over its floor, up to the knees:\n\n{markdown_table(columns, rows)}\n\n"


def _answers(point: Mapping[str, Any]) -> list[str]:
    """Complete answers per second within the budget and after it, and the granted share."""
    late = point["late"] / point["duration_s"]
    in_time = point["achieved_qps"] - late
    return [f"{in_time:.0f}", f"{late:.0f}", percent(point["granted_share"])]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--budget-ms", type=float, default=BUDGET_MS)
    parser.add_argument("--start-qps", type=float, default=20.0, help="lowest rate")
    options = parser.parse_args()
    if options.short:
        plan, factor = replace(SHORT, budget_ms=options.budget_ms, repeats=1), 1.8
    else:
        plan = replace(FULL, budget_ms=options.budget_ms, repeats=3, measure_s=10)
        factor = 1.25
    with one_sentence():
        result = measure(options.run, plan, options.start_qps, factor)
    write_result(options.out, result)
    print(markdown(result))


if __name__ == "__main__":
    main()
