"""Timing works against each other: in turns, in changing order, each time on other rows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from dynens.batch import EncodedBatch

Clock = Callable[[], float]
Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Turn(Generic[Key, Answer]):
    """One work's turn.

    Attributes:
        key: which work.
        seconds: what a call took; of several, the median.
        answer: what it returned, the last time.
    """

    key: Key
    seconds: float
    answer: Answer


def in_turns(
    works: Callable[[int], Mapping[Key, Callable[[], Answer]]],
    repeats: int,
    *,
    warm_up: int,
    calls: int = 1,
    clock: Clock | None = None,
) -> Iterator[Turn[Key, Answer]]:
    """Time works one after the other, over and over, so that a slow moment hits all alike.

    In a repeat the order is random and in the next one the same backwards: of any two works either
    comes first, to cold caches, as often.

    Args:
        works: those of a repeat, which is given by its number; preparing them is not timed.
        repeats: how often each is timed.
        warm_up: repeats before those, discarded.
        calls: how often a turn calls its work, one call right after the other.
        clock: in seconds; None for `time.perf_counter`.
    """
    clock = clock or time.perf_counter
    for repeat in range(warm_up + repeats):
        turns = list(works(repeat).items())
        for turn in _order(len(turns), repeat):
            key, work = turns[turn]
            taken = []
            for _ in range(calls):
                start = clock()
                answer = work()
                taken.append(clock() - start)
            if repeat >= warm_up:
                yield Turn(key, statistics.median(taken), answer)


def median_seconds(turns: Iterable[Turn[Key, object]]) -> dict[Key, float]:
    """Median of every work's turns."""
    seconds: dict[Key, list[float]] = {}
    for turn in turns:
        seconds.setdefault(turn.key, []).append(turn.seconds)
    return {key: float(np.median(taken)) for key, taken in seconds.items()}


def other_rows(batch: EncodedBatch, start: int, rows: int) -> EncodedBatch:
    """`rows` consecutive rows of `batch` from `start`; behind its last row the first one follows.

    Whoever times a graph moves `start` on with every repeat: rows that it has just seen are found
    in the caches, embeddings and all, which no request's are.
    """
    return batch.take((start + np.arange(rows)) % len(batch))


def _order(turns: int, repeat: int) -> npt.NDArray[np.int64]:
    order = np.random.default_rng(repeat // 2).permutation(turns)
    return order[::-1] if repeat % 2 else order
