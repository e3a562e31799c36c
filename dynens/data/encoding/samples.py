"""Samples of a stream of rows that do not depend on how it was cut into chunks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class SystematicSample:
    """Every k-th value (or vector) of a stream, k doubling so that at most `size` · 2 are held.

    Which values are kept depends on their positions alone, not on the chunks they came in.
    """

    def __init__(self, size: int, first: int = 0) -> None:
        self._size = size
        self._step = 1
        self._first = first  # position of the first value kept
        self._seen = first
        self._parts: list[npt.NDArray[np.float64]] = []
        self._held = 0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        part = values[-self._seen % self._step :: self._step].copy()
        self._seen += len(values)
        self._append(part)

    def _append(self, part: npt.NDArray[np.float64]) -> None:
        if not len(part):
            return  # which has no width either
        self._parts.append(part)
        self._held += len(part)
        while self._held > 2 * self._size:
            self._coarsen()

    def _coarsen(self) -> None:
        """Keep the values whose position is a multiple of twice the step."""
        skipped = self._first % (2 * self._step) // self._step
        kept = self.values()[skipped::2]
        self._first += skipped * self._step
        self._parts = [kept] if len(kept) else []
        self._held, self._step = len(kept), self._step * 2

    def merge(self, other: SystematicSample) -> None:
        """Take over the sample of the values that follow."""
        while self._step < other._step:
            self._coarsen()
        while other._step < self._step:
            other._coarsen()
        self._seen = other._seen
        self._append(other.values())

    def values(self) -> npt.NDArray[np.float64]:
        return np.concatenate(self._parts) if self._parts else np.zeros(0)
