"""Works timed in turns, on a clock that passes only while they run."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from dynens import timing
from dynens.batch import EncodedBatch
from dynens.timing import in_turns, median_seconds, other_rows


class Works:
    """Works that take what they are told to, and note when they ran."""

    def __init__(self, seconds: dict[str, Callable[[int], float]]) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.ran: list[list[str]] = []

    def of(self, repeat: int) -> dict[str, Callable[[], int]]:
        self.now += 1000.0  # preparing them
        self.ran.append([])
        return {name: partial(self._run, name, repeat) for name in self.seconds}

    def _run(self, name: str, repeat: int) -> int:
        self.now += self.seconds[name](repeat)
        self.ran[-1].append(name)
        return repeat


def test_what_is_timed_is_the_work_alone_and_after_the_warm_up() -> None:
    works = Works({"a": lambda repeat: 1.0 + repeat, "b": lambda repeat: 7.0})
    turns = list(in_turns(works.of, 3, warm_up=2, clock=lambda: works.now))
    assert [len(ran) for ran in works.ran] == [2] * 5
    taken = {(turn.key, turn.answer): turn.seconds for turn in turns}
    assert taken == {
        **{("a", repeat): 1.0 + repeat for repeat in (2, 3, 4)},
        **{("b", repeat): 7.0 for repeat in (2, 3, 4)},
    }
    assert median_seconds(turns) == {"a": 4.0, "b": 7.0}


def test_a_turn_of_several_calls_counts_their_median() -> None:
    now, spent = 0.0, iter([9.0, 1.0, 2.0, 5.0, 4.0, 3.0])

    def work() -> None:
        nonlocal now
        now += next(spent)

    turns = in_turns(lambda _: {"a": work}, 2, warm_up=0, calls=3, clock=lambda: now)
    assert [turn.seconds for turn in turns] == [2.0, 4.0]


def test_of_any_two_works_either_comes_first_as_often() -> None:
    works = Works(dict.fromkeys("abcd", lambda repeat: 1.0))
    list(in_turns(works.of, 40, warm_up=0, clock=lambda: works.now))
    for first, second in ("ab", "ac", "bd", "cd"):
        earlier = [ran.index(first) < ran.index(second) for ran in works.ran]
        assert sum(earlier) == 20
    assert {ran[0] for ran in works.ran} == set("abcd")


def test_the_clock_is_read_anew_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    works = Works({"a": lambda repeat: 3.0})
    monkeypatch.setattr(timing.time, "perf_counter", lambda: works.now)
    assert median_seconds(in_turns(works.of, 2, warm_up=1)) == {"a": 3.0}


@pytest.mark.parametrize(
    ("start", "rows", "expected"),
    [(0, 3, [0, 1, 2]), (3, 4, [3, 4, 0, 1]), (12, 2, [2, 3]), (4, 7, [4, 0, 1, 2, 3, 4, 0])],
)
def test_behind_the_last_row_the_first_one_follows(
    start: int, rows: int, expected: list[int]
) -> None:
    batch = EncodedBatch(np.zeros((5, 0), np.float32), np.arange(5, dtype=np.int32)[:, None])
    assert other_rows(batch, start, rows).ids[:, 0].tolist() == expected
