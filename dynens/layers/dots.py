"""How well two vectors of a row go together: a user's and an item's of one two-tower model.

Encoders give both one scale for all components (a root mean square of 1). For x and y of L
components, rounded to a grid of 1 / g,

    dot = (Σ round(g x_i) round(g y_i) / g² - m) / d,

with a middle m and a width d of the products seen in training. The sums are of integers, and g
leaves each below 2²⁴, up to which float32 is exact: whatever the order of additions, they come out
the same to the last bit in every runtime, as thresholds of trees demand. Rounding moves a product
by a few percent of its deviation at most (g = 64 for 64 components, 16 for 768).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynens.layers.pairs import ColumnPair

_LARGEST = 8.0  # root mean squares at which components are cut off
_EXACT_BITS = 24  # float32 holds all integers below 2²⁴


@dataclass(frozen=True)
class DotColumns(ColumnPair):
    """Two vectors of one length.

    Attributes:
        taker, owner: their columns of `dense`.
        middle, scale: m and 1 / d of the module's equation.
    """

    taker: slice
    owner: slice
    middle: float
    scale: float


def grid(length: int) -> float:
    """g of the module's equation for vectors of so many components."""
    bits = _EXACT_BITS - math.ceil(math.log2(length * _LARGEST**2))
    return 2.0 ** (bits // 2)


def dots(dense: Tensor, context: Tensor, pairs: Sequence[DotColumns]) -> Tensor:
    """The dot products of P > 0 pairs of vectors.

    Args:
        dense: (N, D).
        context: (1 or N, D), where columns are read that candidates share.
        pairs: the vectors' columns.

    Returns:
        (N or 1, P) float32.
    """
    columns = []
    for pair in pairs:
        taker = (context if pair.taker_is_context else dense)[:, pair.taker]
        owner = (context if pair.owner_is_context else dense)[:, pair.owner]
        steps = grid(taker.shape[1])
        first, second = (torch.round(x.clamp(-_LARGEST, _LARGEST) * steps) for x in (taker, owner))
        total = (first * second).sum(dim=1, keepdim=True)
        columns.append((total - pair.middle * steps**2) * (pair.scale / steps**2))
    return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)
