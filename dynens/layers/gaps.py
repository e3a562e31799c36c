"""How far apart two numbers of a row are that measure the same: two dates, two coordinates, a
balance and its limit.

Both stand on one scale. For numbers x and y, a middle m of their differences and a width d,

    gap = g / (1 + |g|),   g = (x - y - m) / d,

which keeps small differences apart however far the numbers themselves are spread, never reaches 1,
and comes out the same to the last bit in every runtime, as thresholds of trees demand. A pair has
a gap of its own for each third of the differences (minutes, days and months of an article's age),
with their median and their median deviation from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from dynens.layers.columns import take_columns
from dynens.layers.pairs import ColumnPair


@dataclass(frozen=True)
class ApartColumns(ColumnPair):
    """Two dense columns on one scale.

    Attributes:
        taker, owner: the columns of `dense`.
        middle, scale: m and 1 / d of the module's equation.
    """

    taker: int
    owner: int
    middle: float
    scale: float


def gaps(dense: Tensor, context: Tensor, pairs: Sequence[ApartColumns]) -> Tensor:
    """The gaps of P > 0 pairs of columns, neighbours with equal `sides` at once.

    Args:
        dense: (N, D).
        context: (1 or N, D), where columns are read that candidates share.
        pairs: the columns.

    Returns:
        (N or 1, P) float32.
    """
    columns = []
    for (taker_is_own, owner_is_own), group in groupby(pairs, lambda pair: pair.sides):
        same = list(group)
        taker = take_columns(dense if taker_is_own else context, [p.taker for p in same])
        owner = take_columns(dense if owner_is_own else context, [p.owner for p in same])
        middle = torch.tensor([p.middle for p in same], device=dense.device)
        scale = torch.tensor([p.scale for p in same], device=dense.device)
        apart = (taker - owner - middle) * scale
        columns.append(apart / (apart.abs() + 1.0))
    return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)
