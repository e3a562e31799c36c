"""What the values of single fields add to a row: the first-order weights of a factorisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dynens.layers.columns import take_columns


@dataclass(frozen=True)
class FieldColumn:
    """A field of one value.

    Attributes:
        column: of `ids`.
        size: how many ids it has.
        is_context: whether candidates of a ranking request share it.
    """

    column: int
    size: int
    is_context: bool


class FieldEffects(nn.Module):
    """`Σ_f w_f[x_f]` of a row.

    Args:
        fields: that have weights.
        weights: (R,) for each column of `ids`.
    """

    def __init__(self, fields: Sequence[FieldColumn], weights: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._columns: list[tuple[int, ...]] = []
        for number, is_context in enumerate((True, False)):
            mine = [field for field in fields if field.is_context == is_context]
            ends = np.cumsum([field.size for field in mine], dtype=np.int64)
            starts = ends - [field.size for field in mine]
            self._columns.append(tuple(field.column for field in mine))
            self.register_buffer(f"starts{number}", torch.from_numpy(starts.astype(np.int64)))
            parts = [weights[field.column].float() for field in mine]
            self.register_buffer(f"weights{number}", torch.cat([torch.zeros(0), *parts]))

    def forward(self, ids: Tensor, context_rows: Tensor | None = None) -> Tensor:
        """(N, W) → (N,), or (M,) where all fields are context.

        `context_rows` as for `dynens.models.twin.InferenceTwin`.
        """
        total = torch.zeros(1)
        for number, columns in enumerate(self._columns):
            if columns:
                rows = ids if number or context_rows is None else ids[:context_rows]
                at = take_columns(rows, columns).long() + getattr(self, f"starts{number}")
                total = total + getattr(self, f"weights{number}")[at].sum(dim=1)
        return total
