"""Inputs cut by columns, where some columns are the same for all rows of a request.

The candidates of a ranking request share the user and the context. A block of shared columns may
come as a single row that stands for all of them: `W x = W_c x_c + W_o x_o` then multiplies the
shared part once, and broadcasting adds it to every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Block:
    """Some columns of an input.

    Attributes:
        values: (N, w, ...), or (M, w, ...) with M one or N rows where the columns are shared.
        at: (w,) their positions in the whole input.
        is_shared: whether one row may stand for all.
    """

    values: Tensor
    at: Sequence[int]
    is_shared: bool = False


@dataclass(frozen=True)
class Columns:
    """A (N, w, ...) input as blocks of columns, in any order."""

    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, values: Tensor) -> Columns:
        """All columns as one block."""
        return cls((Block(values, range(values.shape[1])),))

    @property
    def own_rows(self) -> Tensor | None:
        """A tensor with N rows, if there is one."""
        return next((block.values for block in self.blocks if not block.is_shared), None)

    def beside(self, other: Columns, width: int) -> Columns:
        """Self, of `width` columns, and to its right `other`."""
        moved = (Block(b.values, [width + i for i in b.at], b.is_shared) for b in other.blocks)
        return Columns((*self.blocks, *moved))

    def whole(self, like: Tensor | None = None) -> Tensor:
        """(N, w, ...): one tensor; M rows where all blocks are shared.

        Args:
            like: a tensor with N rows; None: one of the blocks.
        """
        if len(self.blocks) == 1 and not self.blocks[0].is_shared:
            return self.blocks[0].values
        rows = self.own_rows if like is None else like
        beside = torch.cat(
            [
                expand_rows(block.values, rows)
                if block.is_shared and rows is not None
                else block.values
                for block in self.blocks
            ],
            dim=1,
        )
        at = [i for block in self.blocks for i in block.at]
        if at == sorted(at):
            return beside
        return beside.index_select(1, torch.tensor(sorted(range(len(at)), key=at.__getitem__)))

    def linear(self, layer: nn.Module) -> Tensor:
        """(N, out): `layer` of the whole, shared columns multiplied apart in its first matrix."""
        if isinstance(layer, nn.Sequential):
            inner = self.linear(layer[0])
            return torch.as_tensor(layer[1:](inner))
        shared = [block for block in self.blocks if block.is_shared]
        own = [block for block in self.blocks if not block.is_shared]
        if not shared:
            out: Tensor = layer(self.whole())
            return out
        assert isinstance(layer, nn.Linear)
        once = nn.functional.linear(_beside(shared), _weight(layer, shared), layer.bias)
        if not own:
            return once
        return torch.addmm(once, _beside(own), _weight(layer, own).t())


def take_columns(x: Tensor, columns: Sequence[int]) -> Tensor:
    """(N, W) → (N, len(columns)), without a copy where these are neighbours."""
    if list(columns) == list(range(x.shape[1])):
        return x
    if columns and list(columns) == list(range(columns[0], columns[0] + len(columns))):
        return x[:, columns[0] : columns[0] + len(columns)]
    return x.index_select(1, torch.tensor(columns, dtype=torch.int64))


def linear(layer: nn.Module, x: Tensor | Columns) -> Tensor:
    """`layer(x)`."""
    out: Tensor = x.linear(layer) if isinstance(x, Columns) else layer(x)
    return out


def _beside(blocks: Sequence[Block]) -> Tensor:
    parts = [block.values for block in blocks]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _weight(layer: nn.Linear, blocks: Sequence[Block]) -> Tensor:
    return layer.weight[:, torch.tensor([i for block in blocks for i in block.at])]


class _ExpandRows(torch.autograd.Function):
    """torch's own export of `expand` takes a dozen nodes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, like: Tensor) -> Tensor:
        return values.expand(like.shape[0], *values.shape[1:])

    @staticmethod
    def symbolic(g: Any, values: Any, like: Any) -> Any:
        rows = g.op("Shape", like, start_i=0, end_i=1)
        ones = g.op("Constant", value_t=torch.ones(values.type().dim() - 1, dtype=torch.int64))
        return g.op("Expand", values, g.op("Concat", rows, ones, axis_i=0))


def expand_rows(values: Tensor, like: Tensor) -> Tensor:
    """(M, ...) → (N, ...), M one or N, with as many rows as `like` has."""
    expanded: Tensor = _ExpandRows.apply(values, like)  # type: ignore[no-untyped-call]
    return expanded
