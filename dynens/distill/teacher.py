"""The teacher: blended logits of the pool, on demand and ahead of time."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dynens.batch import EncodedBatch, FloatArray, IntArray
from dynens.config.distill import DistillConfig
from dynens.distill.augment import RowSpace, make_rows
from dynens.distill.weakness import Weakness
from dynens.ensemble.blend import Blend, Logits
from dynens.ensemble.scorer import PoolScorer
from dynens.models.net_learner import NetLearner

LOOKAHEAD_CHUNKS = 4
# Chunks that a step draws its rows from: enough that a row's uses lie many steps apart.
WINDOW_CHUNKS = 32


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
class StudentTeacher:
    """A trained student that labels the made-up rows of the next generation."""

    learner: NetLearner

    def logits(self, batch: EncodedBatch) -> Logits:
        """(B,) float32."""
        return self.learner.predict_logits(batch)


class Labeller(Protocol):
    """Whoever labels made-up rows: a `Teacher`, or one that gives its members' logits."""

    def logits(self, batch: EncodedBatch) -> Logits: ...


@dataclass(frozen=True)
class LabelledRows:
    """Made-up rows with the teacher's logits (B,), or (B, M) of its members."""

    rows: EncodedBatch
    logits: Logits


class RowFactory:
    """Makes and labels rows in the background, a few chunks ahead of the student.

    Labelling costs more than training on the rows does, so every row is used several times: a
    chunk of new rows is labelled every `reuse` steps, and a step draws from the latest
    `WINDOW_CHUNKS` chunks. Chunks and draws depend on (seed, step) alone, and on what `weakness`
    knew some steps before, so a resumed run continues with the same rows. ONNX Runtime releases the
    interpreter lock, so labelling overlaps the student's steps.
    """

    def __init__(
        self,
        teacher: Labeller,
        table: EncodedBatch,
        stats: FrozenStats,
        space: RowSpace,
        config: DistillConfig,
        seed: int,
        weakness: Weakness | None = None,
        unlabelled: EncodedBatch | None = None,
    ) -> None:
        self._teacher = teacher
        self._table = table
        self._stats = stats
        self._space = space
        self._config = config
        self._seed = seed
        self._unlabelled = unlabelled
        self.weakness = weakness

    def make(self, chunk: int, num_rows: int) -> LabelledRows:
        """The labelled rows of one chunk."""
        generator = np.random.default_rng([self._seed, 0xA06, chunk])
        weights = None
        if self.weakness is not None:
            # What was known at the latest when the chunk was asked for, in a continued run too.
            known_at = (chunk - LOOKAHEAD_CHUNKS + 1) * self._config.reuse
            weights = self.weakness.cumulative(known_at)
        rows = make_rows(
            self._table,
            num_rows,
            self._config.augmentations,
            self._space,
            generator,
            weights,
            self._unlabelled,
            self._config.augmentations_per_row,
        )
        rows = replace(rows, stats=self._stats.transform(rows.ids))
        return LabelledRows(rows, self._teacher.logits(rows))

    def batches(self, first_step: int, num_rows: int) -> Iterator[LabelledRows]:
        """Endless batches from `first_step` on; close the iterator to stop the background work."""
        reuse = self._config.reuse
        chunk = max(first_step // reuse - WINDOW_CHUNKS + 1, 0)
        window = _Window()
        ahead: deque[Future[LabelledRows]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="teacher") as executor:
            try:
                for step in itertools.count(first_step):
                    while chunk <= step // reuse:
                        for later in range(chunk + len(ahead), chunk + LOOKAHEAD_CHUNKS):
                            ahead.append(executor.submit(self.make, later, num_rows))
                        window.put(chunk, ahead.popleft().result())
                        chunk += 1
                    yield window.draw(np.random.default_rng([self._seed, 0xD4A, step]), num_rows)
            finally:
                for future in ahead:
                    future.cancel()


class _Window:
    """The latest chunks of equal size, in one set of arrays that old chunks are overwritten in."""

    def __init__(self) -> None:
        self._arrays: list[npt.NDArray[Any]] = []
        self._rows = 0

    def put(self, chunk: int, labelled: LabelledRows) -> None:
        """Add a chunk, in place of the one `WINDOW_CHUNKS` before it."""
        rows = labelled.rows
        assert rows.stats is not None
        parts = (rows.dense, rows.ids, rows.stats, labelled.logits)
        if not self._arrays:
            self._arrays = [
                np.empty((len(part) * WINDOW_CHUNKS, *part.shape[1:]), part.dtype) for part in parts
            ]
        start = (chunk % WINDOW_CHUNKS) * len(rows)
        for array, part in zip(self._arrays, parts, strict=True):
            array[start : start + len(rows)] = part
        self._rows = max(self._rows, start + len(rows))

    def draw(self, generator: np.random.Generator, num_rows: int) -> LabelledRows:
        """`num_rows` rows of the window, drawn with replacement."""
        index = generator.integers(0, self._rows, num_rows)
        dense, ids, stats, logits = (array.take(index, axis=0) for array in self._arrays)
        return LabelledRows(EncodedBatch(dense, ids, stats=stats), logits)
