"""Minibatches of encoded rows as tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynens.batch import EncodedBatch

_PREDICT_ROWS = 8192


@dataclass(frozen=True)
class TensorBatch:
    """An `EncodedBatch` as tensors; `index` are its row numbers in the table it was cut from."""

    dense: Tensor
    ids: Tensor
    labels: Tensor | None
    sample_weight: Tensor | None
    soft_labels: Tensor | None
    stats: Tensor | None
    index: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> TensorBatch:
        """The same rows on a device."""
        return self._each(lambda part: part.to(device), self.index)

    def first(self, rows: int) -> TensorBatch:
        """Its first `rows` rows."""
        return self._each(lambda part: part[:rows], self.index[:rows])

    def _each(
        self, change: Callable[[Tensor], Tensor], index: npt.NDArray[np.int64]
    ) -> TensorBatch:
        def of(part: Tensor | None) -> Tensor | None:
            return None if part is None else change(part)

        return TensorBatch(
            change(self.dense),
            change(self.ids),
            of(self.labels),
            of(self.sample_weight),
            of(self.soft_labels),
            of(self.stats),
            index,
        )


def tensor_batch(batch: EncodedBatch, index: npt.NDArray[np.int64]) -> TensorBatch:
    """The rows at `index`, copied out of `batch` (which may be memory-mapped)."""

    def at(array: npt.NDArray[np.generic] | None) -> Tensor | None:
        return None if array is None else torch.from_numpy(array.take(index, axis=0))

    dense, ids = at(batch.dense), at(batch.ids)
    assert dense is not None
    assert ids is not None
    return TensorBatch(
        dense,
        ids,
        at(batch.labels),
        at(batch.sample_weight),
        at(batch.soft_labels),
        at(batch.stats),
        index,
    )


def minibatches(
    batch: EncodedBatch,
    batch_size: int,
    rng: np.random.Generator | None = None,
    rows: npt.NDArray[np.int64] | None = None,
) -> Iterator[TensorBatch]:
    """One pass over `batch` (or over `rows` of it), shuffled when an `rng` is given.

    The last batch may be smaller; it is joined to none, so that no row is lost.
    """
    for index in row_batches(len(batch), batch_size, rng, rows):
        yield tensor_batch(batch, index)


def row_batches(
    num_rows: int,
    batch_size: int,
    rng: np.random.Generator | None = None,
    rows: npt.NDArray[np.int64] | None = None,
) -> Iterator[npt.NDArray[np.int64]]:
    """The row numbers of `minibatches`."""
    order = np.arange(num_rows) if rows is None else rows
    if rng is not None:
        order = rng.permutation(order)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def prediction_batches(batch: EncodedBatch) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Consecutive slices of `batch` with their `dense` and `ids` tensors."""
    for start in range(0, len(batch), _PREDICT_ROWS):
        rows = slice(start, min(start + _PREDICT_ROWS, len(batch)))
        yield (
            rows,
            torch.from_numpy(np.array(batch.dense[rows], dtype=np.float32)),
            torch.from_numpy(np.array(batch.ids[rows], dtype=np.int32)),
        )
