"""Made-up rows where the student is weak: slices in which it is far from its teacher."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dynens.batch import EncodedBatch, FeatureLayout, FloatArray, field_offsets, num_flat_rows
from dynens.ensemble.blend import Logits
from dynens.metrics import sigmoid

# Validation rows' worth of the average weakness that every slice is given.
PRIOR_ROWS = 20.0
Weights = npt.NDArray[np.float64]


class Weakness:
    """How far the student is from its teacher in every slice, as of each validation point.

    A slice is the rows that hold one id of one field. Its weakness is the mean of
    KL(teacher ‖ student) over its validation rows, shrunk towards the mean over all of them, and
    relative to that: 1 where a slice is as weak as the whole. A row of the table is as weak as its
    slices are on average, and made-up rows start from rows drawn in proportion.

    What was found at every validation point is kept, so that a continued run draws the same rows.

    Args:
        layout: of the encoded rows.
        valid: the validation rows, N of them.
        teacher: (N,) the teacher's logits of them.
        table: the rows that made-up rows start from.
    """

    def __init__(
        self, layout: FeatureLayout, valid: EncodedBatch, teacher: Logits, table: EncodedBatch
    ) -> None:
        offsets = np.array(field_offsets(layout.fields), np.int64)
        self._offsets = np.repeat(offsets, [field.width for field in layout.fields])
        self._num_rows = num_flat_rows(layout.fields)
        self._valid_rows = np.asarray(valid.ids, np.int64) + self._offsets
        self._table_ids = table.ids
        self._teacher = teacher
        self._known: dict[int, FloatArray] = {}
        self._latest: tuple[int, Weights] | None = None

    def update(self, step: int, student: Logits) -> None:
        """Take in the student's logits (N,) of the validation rows at a step."""
        divergence = row_divergence(self._teacher, student)
        overall = max(float(divergence.mean()), 1e-12)
        count = np.bincount(self._valid_rows.ravel(), minlength=self._num_rows)
        width = self._valid_rows.shape[1]
        total = np.bincount(
            self._valid_rows.ravel(), np.repeat(divergence, width), minlength=self._num_rows
        )
        shrunk = (total + PRIOR_ROWS * overall) / (count + PRIOR_ROWS)
        self._known[step] = (shrunk / overall).astype(np.float32)

    def cumulative(self, step: int) -> Weights | None:
        """Running sum of the table rows' weights by what was known before a step; None: nothing."""
        points = [known for known in tuple(self._known) if known < step]  # another thread adds
        if not points:
            return None
        latest = max(points)
        if self._latest is None or self._latest[0] != latest:
            slices = self._known[latest]
            weights, present = np.zeros((2, len(self._table_ids)))
            for column, offset in zip(self._table_ids.T, self._offsets, strict=True):
                is_there = column >= 0
                weights += np.where(is_there, slices[column + offset], 0.0)
                present += is_there
            self._latest = (latest, np.cumsum(weights / np.maximum(present, 1)))
        return self._latest[1]

    def state(self) -> dict[int, FloatArray]:
        """What was found at every validation point, by step."""
        return self._known

    def restore(self, known: dict[int, FloatArray]) -> None:
        """Take back what `state` gave."""
        self._known = dict(known)


def row_divergence(teacher: Logits, student: Logits) -> Weights:
    """(N,) KL(σ(teacher) ‖ σ(student)) in nats, both (N,) logits."""
    z, t = np.asarray(student, np.float64), np.asarray(teacher, np.float64)
    gap: Weights = np.logaddexp(0.0, z) - np.logaddexp(0.0, t)
    divergence = gap - sigmoid(t) * (z - t)
    return np.maximum(divergence, 0.0)


def drawn(
    cumulative: Weights | None, num_rows: int, count: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """`count` row numbers below `num_rows`: in proportion to weights, or all alike."""
    if cumulative is None:
        return generator.integers(0, num_rows, count)
    at = np.searchsorted(cumulative, generator.random(count) * cumulative[-1], side="right")
    rows: npt.NDArray[np.int64] = np.minimum(at, num_rows - 1)
    return rows
