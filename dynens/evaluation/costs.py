"""What a row costs: the engine on 100 candidates of a request, one thread, systems in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np
import numpy.typing as npt

from dynens.batch import Candidates, EncodedBatch, Rows, as_one_request
from dynens.config.serving import System
from dynens.engine import Engine, Scores
from dynens.evaluation.systems import RunSystems, student_outputs

BLOCK_ROWS = 100
_WARM_UP_REPEATS = 3
_ENGINE_NAME: dict[str, System] = {
    "student": "student",
    "dynamic": "dynamic",
    "static_ensemble": "ensemble",
    "static_ensemble_with_student": "ensemble_with_student",
}


@dataclass(frozen=True)
class Timed:
    """What a block took, and whether the ensemble was asked about any of its rows."""

    us_per_row: float
    asked: bool


@dataclass(frozen=True)
class Costs:
    """µs per row by system.

    Attributes:
        rows: encoded rows that share their context.
        candidates: items by their place in the bundle's table, which is how ranking requests come;
            empty where the bundle has no graphs for them.
    """

    rows: dict[str, float]
    candidates: dict[str, float]


def measure_costs(systems: RunSystems, batch: EncodedBatch, *, repeats: int) -> Costs:
    """Median over `repeats` blocks of 100 consecutive rows, divided by the rows, in µs.

    The rows of a block share the context of its first one, as the candidates of a request do.
    Every repeat takes another block, since some ask the ensemble and some do not; within a repeat
    the systems take turns on the same block, in both forms and in random order, since whoever comes
    later finds the block's rows in the caches. A block with an item that is not in the table is not
    measured as candidates.
    """
    assert set(_ENGINE_NAME.values()) == set(get_args(System))
    engine = systems.engine
    places = _places(engine.encoder.item_table() if engine.student.ranks else None)
    as_rows: dict[str, list[Timed]] = {}
    as_candidates: dict[str, list[Timed]] = {}
    for repeat in range(repeats + _WARM_UP_REPEATS):
        block = as_one_request(_block(batch, repeat), engine.layout)
        turns = [(as_rows, name, call) for name, call in _work(systems, block).items()]
        candidates = _candidates(block, engine.encoder.item_table(), places)
        if candidates is not None:
            work = _engine_work(engine, candidates)
            turns += [(as_candidates, name, call) for name, call in work.items()]
        for turn in _order(len(turns), repeat):
            times, name, call = turns[turn]
            start = time.perf_counter()
            answer = call()
            elapsed = time.perf_counter() - start
            if repeat >= _WARM_UP_REPEATS:
                asked = isinstance(answer, Scores) and answer.hard_granted > 0
                times.setdefault(name, []).append(Timed(elapsed / len(block) * 1e6, asked))
    return Costs(_summarised(as_rows), _summarised(as_candidates))


def cost_shares(
    systems: RunSystems, batch: EncodedBatch, fractions: Sequence[float], *, repeats: int
) -> dict[float, float]:
    """How much of the way from the student's cost to that of all rows hard each fraction costs.

    Measured as `measure_costs` measures rows: in every block the threshold is set between the two
    rows that make the fraction, and fractions take turns. 0 and 1 are measured, too.
    """
    engine = systems.engine
    times: dict[float, list[float]] = {}
    for repeat in range(repeats + _WARM_UP_REPEATS):
        block = as_one_request(_block(batch, repeat), engine.layout)
        _, _, difficulty = student_outputs(engine, block)
        below = np.append(-np.sort(-difficulty), -np.inf)  # at n: what just is not hard of n
        counts = [0, len(block), *(round(fraction * len(block)) for fraction in fractions)]
        for turn in _order(len(counts), repeat):
            start = time.perf_counter()
            scores = engine.score(block, threshold=float(below[counts[turn]]))
            elapsed = time.perf_counter() - start
            if repeat >= _WARM_UP_REPEATS:
                times.setdefault(scores.hard_granted / len(block), []).append(elapsed)
    hard = sorted(times)
    seconds = [float(np.median(times[fraction])) for fraction in hard]
    most = seconds[-1] - seconds[0]
    if hard[-1] == hard[0] or most <= 0:
        return {fraction: fraction for fraction in fractions}
    return {f: (float(np.interp(f, hard, seconds)) - seconds[0]) / most for f in fractions}


def _order(turns: int, repeat: int) -> npt.NDArray[np.int64]:
    """A random order, and the same one backwards in the next repeat: of any two systems either
    comes first, to cold caches, as often."""
    order = np.random.default_rng(repeat // 2).permutation(turns)
    return order[::-1] if repeat % 2 else order


def _summarised(times: dict[str, list[Timed]]) -> dict[str, float]:
    costs = {name: _typical(blocks) for name, blocks in times.items()}
    if "dynamic" in times:
        costs["random_route"] = costs["dynamic"]
    return costs


def _typical(blocks: list[Timed]) -> float:
    """The median of the blocks that asked the ensemble and of those that did not, by their shares:
    either kind counts, however rare, and preemptions do not."""
    kinds = [[t.us_per_row for t in blocks if t.asked == asked] for asked in (True, False)]
    return float(sum(len(kind) * np.median(kind) for kind in kinds if kind) / len(blocks))


def _places(table: EncodedBatch | None) -> dict[bytes, int]:
    """Where in the table an item with these encoded columns stands."""
    if table is None:
        return {}
    return {_key(table, i): i for i in range(len(table))}


def _key(rows: EncodedBatch, row: int) -> bytes:
    key: bytes = rows.dense[row].tobytes() + rows.ids[row].tobytes()
    return key


def _candidates(
    block: EncodedBatch, table: EncodedBatch | None, places: dict[bytes, int]
) -> Candidates | None:
    if table is None or not places:
        return None
    own = EncodedBatch(
        block.dense[:, block.dense.shape[1] - table.dense.shape[1] :],
        block.ids[:, block.ids.shape[1] - table.ids.shape[1] :],
    )
    found = [places.get(_key(own, i), -1) for i in range(len(own))]
    if -1 in found:
        return None
    context = EncodedBatch(block.dense[:1], block.ids[:1])
    return Candidates(context, table, np.array(found, np.int32))


def _block(batch: EncodedBatch, repeat: int) -> EncodedBatch:
    blocks = max(len(batch) // BLOCK_ROWS, 1)
    start = (repeat % blocks) * BLOCK_ROWS
    return batch.take(slice(start, start + BLOCK_ROWS))


def _engine_work(engine: Engine, rows: Rows) -> dict[str, Callable[[], object]]:
    return {
        name: partial(engine.score, rows, system=system) for name, system in _ENGINE_NAME.items()
    }


def _work(systems: RunSystems, block: EncodedBatch) -> dict[str, Callable[[], object]]:
    work = _engine_work(systems.engine, block)
    pools = {
        "baseline": ("baseline",),
        "best_single": (systems.best_single,),
        "full_pool": systems.learners,
    }
    shares = systems.engine.layout.has_context
    for name, learners in pools.items():
        work[name] = partial(systems.scorer.logits_of, learners, block, shares_context=shares)
    return work
