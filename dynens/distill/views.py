"""Two views of an item: what was done with it, through its id, and what it is, through the rest.

The behaviour view of a row lacks all that describes its item, the content view its item's id, as a
new item's row does. Both learn from the teacher of the whole row, and from each other:

    λ₁ L(content) + λ₂ L(behaviour) + λ₃ L(alignment)

with the response loss of either view and, for the alignment, the mean of the KL divergences of each
view to the other, whose answers carry no gradient.

References:
    Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019, eq. 7 (the
    λ: "dynamic weight average").
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dynens.batch import OUT_OF_VOCABULARY
from dynens.distill.augment import RowSpace
from dynens.models.batches import TensorBatch

NUM_LOSSES = 3
_SOFTNESS = 2.0
Columns = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Views:
    """Which columns either view lacks.

    Attributes:
        key_ids: columns of `ids` that hold the item's key, or tell it (pairs).
        content_dense, content_ids: columns that describe the item.
        missing_dense, missing_ids: (1, D) and (1, W) of a row in which every feature is missing.
    """

    key_ids: Columns
    content_dense: Columns
    content_ids: Columns
    missing_dense: Tensor
    missing_ids: Tensor

    @classmethod
    def of(cls, space: RowSpace, keys: Collection[str]) -> Views | None:
        """The views of a table; None where it has no item key, or nothing else of items.

        Args:
            space: of the table.
            keys: names of the features that are the item's key, or tell it.
        """
        item = [unit for unit in space.units if unit.entity == "item" or unit.name in keys]
        key = [unit.ids for unit in item if unit.name in keys and len(unit.ids)]
        content = [unit for unit in item if unit.name not in keys]
        if not key or not content:
            return None
        return cls(
            np.concatenate(key),
            np.concatenate([unit.dense for unit in content]),
            np.concatenate([unit.ids for unit in content]),
            torch.from_numpy(np.array(space.missing.dense)),
            torch.from_numpy(np.array(space.missing.ids)),
        )

    def content(self, batch: TensorBatch) -> TensorBatch:
        """The rows as those of items that training never had."""
        ids = batch.ids.clone()
        ids[:, self.key_ids] = OUT_OF_VOCABULARY
        return replace(batch, ids=ids, stats=None)

    def behaviour(self, batch: TensorBatch) -> TensorBatch:
        """The rows with nothing but the id of their items."""
        dense, ids = batch.dense.clone(), batch.ids.clone()
        dense[:, self.content_dense] = self.missing_dense[:, self.content_dense].to(dense.device)
        ids[:, self.content_ids] = self.missing_ids[:, self.content_ids].to(ids.device)
        return replace(batch, dense=dense, ids=ids, stats=None)


class ViewBalance(nn.Module):
    """λ of the three losses: 3 · softmax(r / 2), r a loss's mean of the last epoch over that of the
    one before, so that what falls slowly weighs more. All are 1 in the first two epochs."""

    last: Tensor
    before: Tensor
    sums: Tensor
    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.full((NUM_LOSSES,), torch.nan))
        self.register_buffer("before", torch.full((NUM_LOSSES,), torch.nan))
        self.register_buffer("sums", torch.zeros(NUM_LOSSES))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, losses: Tensor) -> Tensor:
        """The weighted sum of (3,) losses, which are remembered."""
        self.sums += losses.detach()
        self.steps += 1
        return (self.weights() * losses).sum()

    def weights(self) -> Tensor:
        """(3,) λ."""
        ratio = self.last / self.before
        if not torch.isfinite(ratio).all():
            return torch.ones_like(ratio)
        return NUM_LOSSES * torch.softmax(ratio / _SOFTNESS, dim=0)

    def end_epoch(self) -> None:
        """Take the epoch's means as the last ones."""
        self.before.copy_(self.last)
        self.last.copy_(self.sums / self.steps.clamp(min=1))
        self.sums.zero_()
        self.steps.zero_()
