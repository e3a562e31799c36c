"""What a row costs: the engine on 100 candidates of a request, one thread, systems in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import get_args

import numpy as np

from dynens.batch import EncodedBatch, as_one_request
from dynens.config.serving import System
from dynens.evaluation.systems import RunSystems

BLOCK_ROWS = 100
_WARM_UP_REPEATS = 3
_ENGINE_NAME: dict[str, System] = {
    "student": "student",
    "dynamic": "dynamic",
    "static_ensemble": "ensemble",
    "static_ensemble_with_student": "ensemble_with_student",
}


def cost_us_per_row(systems: RunSystems, batch: EncodedBatch, *, repeats: int) -> dict[str, float]:
    """Median over `repeats` blocks of 100 consecutive rows, divided by the rows, in µs.

    The rows of a block share the context of its first one, as the candidates of a request do.
    Every repeat takes another block, so that the dynamic system's cost averages over easy and hard
    rows; within a repeat the systems take turns on the same block.
    """
    assert set(_ENGINE_NAME.values()) == set(get_args(System))
    times: dict[str, list[float]] = {}
    for repeat in range(repeats + _WARM_UP_REPEATS):
        block = as_one_request(_block(batch, repeat), systems.engine.layout)
        for name, work in _work(systems, block).items():
            start = time.perf_counter()
            work()
            elapsed = time.perf_counter() - start
            if repeat >= _WARM_UP_REPEATS:
                times.setdefault(name, []).append(elapsed / len(block) * 1e6)
    costs = {name: float(np.median(values)) for name, values in times.items()}
    costs["dynamic"] = float(np.mean(_trimmed(times["dynamic"])))
    costs["random_route"] = costs["dynamic"]
    return costs


def _trimmed(values: list[float]) -> list[float]:
    """Without the slowest tenth (preemptions); the mean keeps what hard blocks cost."""
    return sorted(values)[: max(int(len(values) * 0.9), 1)]


def _block(batch: EncodedBatch, repeat: int) -> EncodedBatch:
    blocks = max(len(batch) // BLOCK_ROWS, 1)
    start = (repeat % blocks) * BLOCK_ROWS
    return batch.take(slice(start, start + BLOCK_ROWS))


def _work(systems: RunSystems, block: EncodedBatch) -> dict[str, Callable[[], object]]:
    work: dict[str, Callable[[], object]] = {
        name: partial(systems.engine.score, block, system=system)
        for name, system in _ENGINE_NAME.items()
    }
    pools = {
        "baseline": ("baseline",),
        "best_single": (systems.best_single,),
        "full_pool": systems.learners,
    }
    shares = systems.engine.layout.has_context
    for name, learners in pools.items():
        work[name] = partial(systems.scorer.logits_of, learners, block, shares_context=shares)
    return work
