"""What the serving benchmarks make of their measurements."""

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.common import spread
from benchmarks.floors import stacked, summarise_rounds
from benchmarks.load_curve import knee, over_the_floor, points, sweep
from benchmarks.loads import SHORT, summarise
from benchmarks.peers import common_rate, largest_difference, verdict
from serving.loadtest import LoadResult

GOOD = LoadResult(
    offered_qps=100,
    achieved_qps=100,
    requests=1000,
    not_sent=0,
    errors={},
    mean_ms=2,
    p50_ms=2,
    p95_ms=4,
    p99_ms=6,
    p999_ms=20,
    max_ms=30,
    hard_wanted=100,
    hard_granted=100,
    degraded=0,
    late=0,
    rows_per_request=1,
    duration_s=10,
)


def test_rounds_are_summed_up_by_median_and_range() -> None:
    rounds = [replace(GOOD, p99_ms=v, hard_granted=g) for v, g in ((9, 100), (5, 98), (6, 99))]
    summary = summarise(rounds)
    assert summary["p99_ms"] == [6, 5, 9]
    assert summary["granted_share"] == 0.98
    assert summary["hard_share"] == 0.1
    assert spread(summary["p99_ms"], 1) == "6.0 (5.0–9.0)"


def curve(*p99_ms: float) -> list[dict[str, Any]]:
    return [
        {"offered_qps": 10.0 * (i + 1), "p99_ms": p, "error_rate": 0.0, "granted_share": 1.0}
        for i, p in enumerate(p99_ms)
    ]


@pytest.mark.parametrize(
    ("p99_ms", "rate"),
    [((1, 2, 9, 3, 10, 11, 1), 40.0), ((1, 2, 9), 20.0), ((9, 9, 1), 0.0), ((9, 1, 9, 9), 20.0)],
)
def test_the_knee_is_the_last_rate_before_two_broken_ones(
    p99_ms: tuple[float, ...], rate: float
) -> None:
    assert knee(curve(*p99_ms), 8.0) == rate


@pytest.mark.parametrize("change", [{"error_rate": 0.002}, {"granted_share": 0.98}])
def test_errors_and_missing_hard_rows_end_the_knee(change: dict[str, float]) -> None:
    points_ = curve(1, 1, 1, 1)
    points_[1] |= change
    points_[2] |= change
    assert knee(points_, 8.0) == 10.0


def test_points_are_medians_over_the_sweeps_that_got_there() -> None:
    first = [replace(GOOD, p99_ms=4), replace(GOOD, offered_qps=200, p99_ms=9)]
    second = [replace(GOOD, p99_ms=6)]
    third = [replace(GOOD, p99_ms=7)]
    found = points([first, second, third])
    assert [(p["offered_qps"], p["p99_ms"]) for p in found] == [(100, 6), (200, 9)]
    assert found[0]["p99_rounds_ms"] == [4, 6, 7]


class FakeBench:
    """Systems that keep the promise up to a rate."""

    plan = SHORT

    def __init__(self, peaks: dict[str, float]) -> None:
        self.profiles = peaks

    def send(self, name: str, rate: float, seconds: float) -> LoadResult:
        late = rate > self.profiles[name]
        return replace(GOOD, offered_qps=rate, p99_ms=99 if late else 1, duration_s=seconds)


def test_a_system_leaves_the_sweep_after_two_broken_rates() -> None:
    results = sweep(FakeBench({"slow": 25, "fast": 90}), 10, 2)  # type: ignore[arg-type]
    rates = {name: [r.offered_qps for r in found] for name, found in results.items()}
    assert rates == {"slow": [10, 20, 40, 80], "fast": [10, 20, 40, 80, 160, 320]}


def test_each_layer_says_what_it_adds() -> None:
    rounds = []
    for shift in (0.0, 0.1, -0.1):
        values = {"onnx": 0.2, "engine": 0.5, "request": 1, "application": 1.5, "server": 2}
        systems = ("student", "dynamic", "static")
        rounds.append({f"{layer}_{s}": v + shift for layer, v in values.items() for s in systems})
    rows = stacked(summarise_rounds(rounds))
    assert [row[1] for row in rows] == [
        "0.20 (0.10–0.30)",
        "0.50 (0.40–0.60) [+0.30]",
        "1.00 (0.90–1.10) [+0.50]",
        "1.50 (1.40–1.60) [+0.50]",
        "2.00 (1.90–2.10) [+0.50]",
    ]


def test_the_common_rate_suits_the_slowest_but_is_enough_for_percentiles() -> None:
    assert common_rate({"a": 100.0, "b": 60.0}) == 30.0
    assert common_rate({"a": 100.0, "b": 0.0}) == 10.0


def test_answers_are_compared_item_by_item() -> None:
    ours = {"items": [{"item": "x", "probability": 0.5}, {"item": "y", "probability": 0.25}]}
    theirs = {"items": [{"item": "y", "probability": 0.3}, {"item": "x", "probability": 0.5}]}
    assert largest_difference(ours, theirs) == pytest.approx(0.05)
    with pytest.raises(SystemExit, match="different items"):
        largest_difference(ours, {"items": []})


def test_it_says_where_we_lose() -> None:
    def latency(p50: float, p99: float) -> dict[str, list[float]]:
        return {"p50_ms": [p50] * 3, "p99_ms": [p99] * 3}

    result = {
        "versions": {"mosec": "mosec==1"},
        "peaks_qps": {"static": 100.0, "mosec": 40.0, "mosec_batch": 50.0},
        "latency": {
            "static": latency(3, 6),
            "mosec": latency(1, 1),
            "mosec_batch": latency(2, 8),
        },
    }
    assert verdict(result) == (
        "- Static trio against mosec + batch: peak × 2.00 (not worse), p50 × 1.50 (we lose), "
        "p99 × 0.75 (not worse)."
    )


def test_the_student_stands_beside_its_floor_where_both_kept_the_promise() -> None:
    def curve(*p99: float) -> list[dict[str, float]]:
        rows = zip((20.0, 40.0, 80.0), p99, strict=False)
        return [{"offered_qps": rate, "p50_ms": p / 2, "p99_ms": p} for rate, p in rows]

    result = {
        "curves": {"noop": curve(1.0, 1.5, 2.0), "student": curve(1.5, 3.0, 9.0)},
        "knees_qps": {"noop": 80.0, "student": 40.0},
    }
    lines = over_the_floor(result).strip().splitlines()
    assert lines[4:] == [
        "| 20 | 0.50 / 0.75 (+0.25) | 1.00 / 1.50 (+0.50) |",
        "| 40 | 0.75 / 1.50 (+0.75) | 1.50 / 3.00 (+1.50) |",
    ]
    assert over_the_floor({**result, "curves": {"student": curve(1.5)}}) == ""
    faster = {"noop": curve(1.5), "student": curve(1.0)}
    assert "| 1.50 / 1.00 (-0.50) |" in over_the_floor({**result, "curves": faster})
