"""The teacher: blended logits of the pool, on demand and ahead of time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from dynens.batch import EncodedBatch, FloatArray, IntArray
from dynens.config.distill import DistillConfig
from dynens.distill.augment import RowSpace, make_rows
from dynens.ensemble.blend import Blend, Logits
from dynens.ensemble.scorer import PoolScorer

LOOKAHEAD_BATCHES = 4


class FrozenStats(Protocol):
    """The frozen target and count encodings of ids (`dynens.data.statistics.StatTables`)."""

    def transform(self, ids: IntArray) -> FloatArray: ...


@dataclass(frozen=True)
class Teacher:
    """Blended logits of exported learners; target encodings of made-up rows are the frozen ones."""

    scorer: PoolScorer
    blend: Blend

    def logits(self, batch: EncodedBatch) -> Logits:
        """(B,) float32 teacher logits."""
        return self.blend.logit(self.scorer.logits(batch))


@dataclass(frozen=True)
class LabelledRows:
    """Made-up rows with the teacher's logits (B,)."""

    rows: EncodedBatch
    logits: Logits


class RowFactory:
    """Makes and labels rows in the background, a few batches ahead of the student.

    Batch `step` depends on (seed, step) alone, so a resumed run continues with the same rows.
    ONNX Runtime releases the interpreter lock, so labelling overlaps the student's steps.
    """

    def __init__(
        self,
        teacher: Teacher,
        table: EncodedBatch,
        stats: FrozenStats,
        space: RowSpace,
        config: DistillConfig,
        seed: int,
    ) -> None:
        self._teacher = teacher
        self._table = table
        self._stats = stats
        self._space = space
        self._config = config
        self._seed = seed

    def make(self, step: int, num_rows: int) -> LabelledRows:
        """The labelled rows of one step."""
        generator = np.random.default_rng([self._seed, 0xA06, step])
        rows = make_rows(self._table, num_rows, self._config.augmentations, self._space, generator)
        rows = replace(rows, stats=self._stats.transform(rows.ids))
        return LabelledRows(rows, self._teacher.logits(rows))

    def batches(self, first_step: int, num_rows: int) -> Iterator[LabelledRows]:
        """Endless batches from `first_step` on; close the iterator to stop the background work."""
        with ThreadPoolExecutor(1, thread_name_prefix="teacher") as executor:
            queue: list[Future[LabelledRows]] = []
            step = first_step
            try:
                while True:
                    while len(queue) < LOOKAHEAD_BATCHES:
                        queue.append(executor.submit(self.make, step, num_rows))
                        step += 1
                    yield queue.pop(0).result()
            finally:
                for future in queue:
                    future.cancel()
