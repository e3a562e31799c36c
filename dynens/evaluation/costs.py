"""What a row costs: the engine on 100 candidates of a request, one thread, systems in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np

from dynens.batch import Candidates, EncodedBatch, FeatureLayout, Rows, as_one_request
from dynens.config.serving import System
from dynens.engine import Engine, Scores
from dynens.evaluation.systems import RunSystems, student_outputs
from dynens.timing import in_turns, other_rows

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
    the systems take turns on the same block, in both forms and in changing order, since whoever
    comes later finds the block's rows in the caches. A block with an item that is not in the table
    is not measured as candidates.
    """
    assert set(_ENGINE_NAME.values()) == set(get_args(System))
    engine = systems.engine
    places = _places(engine.encoder.item_table() if engine.student.ranks else None)

    def works(repeat: int) -> dict[tuple[str, str], Callable[[], object]]:
        block = _block(batch, repeat, engine.layout)
        turns = {("rows", name): call for name, call in _work(systems, block).items()}
        candidates = _candidates(block, engine.encoder.item_table(), places)
        if candidates is not None:
            work = _engine_work(engine, candidates)
            turns |= {("candidates", name): call for name, call in work.items()}
        return turns

    times: dict[str, dict[str, list[Timed]]] = {"rows": {}, "candidates": {}}
    for turn in in_turns(works, repeats, warm_up=_WARM_UP_REPEATS):
        form, name = turn.key
        asked = isinstance(turn.answer, Scores) and turn.answer.hard_granted > 0
        timed = Timed(turn.seconds / BLOCK_ROWS * 1e6, asked)
        times[form].setdefault(name, []).append(timed)
    return Costs(_summarised(times["rows"]), _summarised(times["candidates"]))


def cost_shares(
    systems: RunSystems, batch: EncodedBatch, fractions: Sequence[float], *, repeats: int
) -> dict[float, float]:
    """How much of the way from the student's cost to that of all rows hard each fraction costs.

    Measured as `measure_costs` measures rows: in every block the threshold is set between the two
    rows that make the fraction, and fractions take turns. 0 and 1 are measured, too.
    """
    engine = systems.engine
    counts = {0, BLOCK_ROWS, *(round(fraction * BLOCK_ROWS) for fraction in fractions)}

    def works(repeat: int) -> dict[int, Callable[[], Scores]]:
        block = _block(batch, repeat, engine.layout)
        _, _, difficulty = student_outputs(engine, block)
        below = np.append(-np.sort(-difficulty), -np.inf)  # at n: what just is not hard of n
        return {n: partial(engine.score, block, threshold=float(below[n])) for n in sorted(counts)}

    times: dict[float, list[float]] = {}
    for turn in in_turns(works, repeats, warm_up=_WARM_UP_REPEATS):
        times.setdefault(turn.answer.hard_granted / BLOCK_ROWS, []).append(turn.seconds)
    hard = sorted(times)
    seconds = [float(np.median(times[fraction])) for fraction in hard]
    most = seconds[-1] - seconds[0]
    if hard[-1] == hard[0] or most <= 0:
        return {fraction: fraction for fraction in fractions}
    return {f: (float(np.interp(f, hard, seconds)) - seconds[0]) / most for f in fractions}


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


def _block(batch: EncodedBatch, repeat: int, layout: FeatureLayout) -> EncodedBatch:
    return as_one_request(other_rows(batch, repeat * BLOCK_ROWS, BLOCK_ROWS), layout)


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
