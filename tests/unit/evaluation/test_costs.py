"""What a row is said to cost."""

import itertools
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dynens import timing
from dynens.batch import EncodedBatch, FeatureLayout
from dynens.engine import Scores
from dynens.evaluation import costs

REPEATS = 40
Seconds = Mapping[str, Callable[[int], float]]


def measured(
    monkeypatch: pytest.MonkeyPatch,
    seconds: Seconds,
    hard: Callable[[int], int],
    num_rows: int = 400,
) -> Any:
    """Costs where the n-th call of a system takes so long, and so many of its rows are hard."""
    now = 0.0
    calls: dict[str, itertools.count[int]] = {}

    def take(name: str) -> int:
        nonlocal now
        number = next(calls.setdefault(name, itertools.count(-costs._WARM_UP_REPEATS)))
        now += seconds.get(name, lambda _: 1.0)(number)
        return number

    def score(rows: EncodedBatch, *, system: str) -> Scores:
        assert len(rows) == costs.BLOCK_ROWS
        number = take(system)
        granted = {"student": 0, "dynamic": hard(number)}.get(system, len(rows))
        zeros = np.zeros(len(rows), np.int32)
        return Scores(zeros.astype(np.float32), zeros, granted, granted)

    student = SimpleNamespace(ranks=False)
    encoder = SimpleNamespace(item_table=lambda: None)
    layout = FeatureLayout((), ())
    engine = SimpleNamespace(student=student, encoder=encoder, layout=layout, score=score)
    scorer = SimpleNamespace(logits_of=lambda names, block, **_: take(names[0]))
    systems = SimpleNamespace(engine=engine, scorer=scorer, best_single="a", learners=("b", "c"))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    batch = EncodedBatch(np.zeros((num_rows, 0), np.float32), np.zeros((num_rows, 0), np.int32))
    return costs.measure_costs(systems, batch, repeats=REPEATS).rows  # type: ignore[arg-type]


def test_routing_that_asks_nothing_of_the_ensemble_costs_what_the_student_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def often_interrupted(number: int) -> float:
        return 9.0 if number % 3 == 0 else 1.0

    seconds = dict.fromkeys(("student", "dynamic"), often_interrupted)
    rows = measured(monkeypatch, seconds, lambda number: 0)
    assert rows["dynamic"] == rows["random_route"] == rows["student"] == pytest.approx(1e4)


def test_the_few_blocks_with_hard_rows_count_by_their_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hard(number: int) -> int:
        return 100 * (number % 20 == 0)

    rows = measured(monkeypatch, {"dynamic": lambda n: 21.0 if hard(n) else 1.0}, hard)
    assert rows["dynamic"] == pytest.approx(1e4 * (0.95 + 0.05 * 21))


def test_few_rows_are_measured_in_requests_of_as_many_as_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = measured(monkeypatch, {}, lambda number: 0, num_rows=30)
    assert rows["student"] == pytest.approx(1e4)


def test_of_any_two_systems_either_comes_first_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes first finds cold caches."""
    first: dict[int, str] = {}

    def seconds_of(name: str) -> Callable[[int], float]:
        def seconds(number: int) -> float:
            first.setdefault(number, name)
            return 1.0

        return seconds

    pair = ("student", "dynamic")
    measured(monkeypatch, {name: seconds_of(name) for name in pair}, lambda number: 0)
    counts = [list(first.values()).count(name) for name in pair]
    assert sum(counts) == REPEATS + costs._WARM_UP_REPEATS
    assert abs(counts[0] - counts[1]) <= 1


@pytest.mark.parametrize("ties", [False, True])
def test_a_fraction_costs_what_so_many_hard_rows_were_measured_to_cost(
    monkeypatch: pytest.MonkeyPatch, ties: bool
) -> None:
    """20 µs for the student, 30 more for asking the ensemble at all and 1 for each row it answers;
    where difficulties are tied, fractions that cannot be had lie between those that can."""
    now = 0.0
    difficulty = np.arange(100)[::-1] // (50 if ties else 1)

    def score(rows: EncodedBatch, *, threshold: float) -> Scores:
        nonlocal now
        granted = int((difficulty > threshold).sum())
        now += 20e-6 + (30e-6 + granted * 1e-6 if granted else 0.0)
        zeros = np.zeros(len(rows), np.int32)
        return Scores(zeros.astype(np.float32), zeros, granted, granted)

    engine = SimpleNamespace(layout=FeatureLayout((), ()), score=score)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    monkeypatch.setattr(costs, "student_outputs", lambda *_: (None, None, difficulty))
    batch = EncodedBatch(np.zeros((400, 0), np.float32), np.zeros((400, 0), np.int32))
    systems = SimpleNamespace(engine=engine)
    shares = costs.cost_shares(systems, batch, (0, 0.1, 0.5, 1), repeats=4)  # type: ignore[arg-type]
    tenth = 0.2 * 80 / 130 if ties else 40 / 130
    assert [shares[f] for f in (0, 0.1, 0.5, 1)] == pytest.approx([0, tenth, 80 / 130, 1])
