"""Inputs that two fields of a row give together, beside what each of them says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ColumnPair:
    """Two sides of an encoded row.

    Attributes:
        taker_is_context, owner_is_context: whether the candidates of a ranking request share them.
    """

    taker_is_context: bool = False
    owner_is_context: bool = False

    @property
    def is_context(self) -> bool:
        """Whether candidates share both."""
        return self.taker_is_context and self.owner_is_context

    @property
    def sides(self) -> tuple[bool, bool]:
        """Of which of the two candidates have values of their own."""
        return not self.taker_is_context, not self.owner_is_context


@dataclass(frozen=True)
class PairInputs:
    """One kind of such inputs.

    Attributes:
        function: (N, W) rows, (1 or N, W) rows to read shared columns from and P > 0 pairs → (N or
            1, P) float32.
        reads_ids: whether these rows are ids; else they are dense features.
        pairs: those of the context first.
    """

    function: Callable[[Tensor, Tensor, Sequence[Any]], Tensor]
    reads_ids: bool
    pairs: tuple[ColumnPair, ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def rows(self, dense: Tensor, ids: Tensor) -> Tensor:
        """The part of encoded rows that is read."""
        return ids if self.reads_ids else dense
