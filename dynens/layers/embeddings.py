"""Sparse ids to dense vectors: TorchRec in training, one flat Gather in the inference twin.

Both share one weight layout. Every field owns `1 + num_embeddings` consecutive rows of one flat
table; the first of them is all zero and stands for padding, so `row = id + offset` holds for every
id, `PADDING = -1` included, with offsets pointing one past the padding row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchrec import (
    EmbeddingBagCollection,
    EmbeddingBagConfig,
    KeyedJaggedTensor,
    PoolingType,
)

from dynens.batch import SparseField, field_offsets, num_flat_rows
from dynens.config.learner import Pooling

_TABLE = "fields"
INITIAL_STD = 0.01
POOLINGS: dict[Pooling, PoolingType] = {"sum": PoolingType.SUM, "mean": PoolingType.MEAN}


def _column_runs(fields: Sequence[SparseField]) -> list[tuple[slice, bool]]:
    """Columns of `ids` as runs: each multi-valued field alone (True), neighbours together."""
    runs: list[tuple[slice, bool]] = []
    start = 0
    for field in fields:
        stop = start + field.width
        if field.width == 1 and runs and not runs[-1][1]:
            runs[-1] = (slice(runs[-1][0].start, stop), False)
        else:
            runs.append((slice(start, stop), field.width > 1))
        start = stop
    return runs


def int32(value: int) -> Tensor:
    """A constant of the ids' type: exported comparisons then need no conversion of the ids."""
    return torch.tensor(value, dtype=torch.int32)


class FlatIndex(nn.Module):
    """Positions of fields in `ids` and in the flat table, as tensors that move with the module."""

    offsets: Tensor
    pooling: Tensor

    def __init__(self, fields: Sequence[SparseField]) -> None:
        super().__init__()
        self.num_fields = len(fields)
        self.single_valued = all(field.width == 1 for field in fields)
        self.runs = _column_runs(fields)
        self.sizes = torch.tensor([1 + field.num_embeddings for field in fields])
        self.padding_rows = torch.tensor(field_offsets(fields), dtype=torch.int64) - 1
        widths = torch.tensor([field.width for field in fields], dtype=torch.int64)
        offsets = torch.tensor(field_offsets(fields), dtype=torch.int32)
        owner = torch.repeat_interleave(torch.arange(len(fields)), widths)
        pooling = torch.zeros(len(owner), len(fields))
        pooling[torch.arange(len(owner)), owner] = 1.0
        self.register_buffer("offsets", offsets.repeat_interleave(widths), persistent=False)
        self.register_buffer("pooling", pooling, persistent=False)

    def rows(self, ids: Tensor) -> Tensor:
        """(B, W) ids → (B, W) rows of the flat table."""
        return ids + self.offsets

    def pool(self, vectors: Tensor, ids: Tensor) -> Tensor:
        """(B, W, E) row vectors, zero at padding → (B, F, E) means over the values present."""
        if self.single_valued:
            return vectors
        parts = []
        for columns, is_bag in self.runs:
            part = vectors[:, columns]
            if is_bag:
                present = (ids[:, columns] >= int32(0)).to(vectors.dtype)
                counts = present.sum(dim=1, keepdim=True).clamp(min=1.0)
                part = part.sum(dim=1, keepdim=True) / counts.unsqueeze(2)
            parts.append(part)
        return torch.cat(parts, dim=1)


class SparseEmbeddings(nn.Module):
    """Pooled embeddings of every sparse field, held by a TorchRec `EmbeddingBagCollection`.

    The collection has one flat table and one feature, and the (B, F) bags of a batch form one
    `KeyedJaggedTensor` of B·F bags: a single pooled lookup however many fields there are.
    `training/distributed.py` uses one table per field instead, so that tables can be sharded,
    and converts its weights to this layout.

    Args:
        fields: the sparse fields.
        embedding_dim: E.
        sparse_gradients: the table's gradient holds only the rows that were read (`LazyAdam`).
        initial_std: deviation of the weights at the start.
        pooling: what a list is: the sum of its values' rows or their mean.
    """

    def __init__(
        self,
        fields: Sequence[SparseField],
        embedding_dim: int,
        sparse_gradients: bool = False,
        initial_std: float = INITIAL_STD,
        pooling: Pooling = "sum",
    ) -> None:
        super().__init__()
        self.fields = tuple(fields)
        self.initial_std = initial_std
        self.embedding_dim = embedding_dim
        self.pooling = pooling
        self.index = FlatIndex(fields)
        if not fields:
            return
        table = EmbeddingBagConfig(
            name=_TABLE,
            embedding_dim=embedding_dim,
            num_embeddings=num_flat_rows(fields),
            feature_names=[_TABLE],
            pooling=POOLINGS["sum" if self.index.single_valued else pooling],
        )
        self.collection = EmbeddingBagCollection(tables=[table])
        self.collection.embedding_bags[_TABLE].sparse = sparse_gradients
        self.reset_parameters()

    @property
    def weight(self) -> Tensor:
        """The flat table, (rows, embedding_dim)."""
        if not self.fields:
            return torch.zeros(0, self.embedding_dim)
        weight: Tensor = self.collection.embedding_bags[_TABLE].weight
        return weight

    def reset_parameters(self) -> None:
        """Normal(0, `initial_std`), zero for padding rows."""
        if not self.fields:
            return
        with torch.no_grad():
            self.weight.normal_(0.0, self.initial_std)
            self.weight[torch.tensor(field_offsets(self.fields)) - 1] = 0.0

    def fill_unseen(self, count: Tensor) -> None:
        """Give values that training never met the mean row of their field, that of an average row.

        Otherwise their rows would be those that chance drew at the start.

        Args:
            count: (rows,) how often each row of the flat table was read.
        """
        weight, start = self.weight.detach(), 0
        for field in self.fields:
            rows = slice(start + 1, start + 1 + field.num_embeddings)
            mine, start = count[rows].to(weight.dtype), rows.stop
            if mine.any():
                mean = mine @ weight[rows] / mine.sum()
                weight[rows] = torch.where(mine[:, None] > 0, weight[rows], mean)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, W) int32 ids → (B, F, E) float32."""
        if not self.fields:
            return ids.new_zeros((len(ids), 0, self.embedding_dim), dtype=torch.float32)
        pooled: Tensor = self.collection(self._bags(ids)).values()
        return pooled.view(len(ids), self.index.num_fields, self.embedding_dim)

    def _bags(self, ids: Tensor) -> KeyedJaggedTensor:
        num_bags = len(ids) * self.index.num_fields
        rows = self.index.rows(ids)
        if self.index.single_valued:
            values = rows.view(-1)
            offsets = torch.arange(num_bags + 1, dtype=ids.dtype, device=ids.device)
            lengths = torch.ones(num_bags, dtype=ids.dtype, device=ids.device)
        else:
            present = ids >= 0
            values = rows[present]
            lengths = torch.matmul(present.float(), self.index.pooling).to(ids.dtype).view(-1)
            offsets = torch.nn.functional.pad(lengths.cumsum(0, dtype=ids.dtype), (1, 0))
        return KeyedJaggedTensor(
            keys=[_TABLE], values=values, lengths=lengths, offsets=offsets, stride=num_bags
        )


class FlatEmbeddings(nn.Module):
    """The inference form of `SparseEmbeddings`.

    One Gather, and for each list one sum. Where means are taken of lists the table has one more
    column, 1 in every row but those of padding: its sum over a list is the count that they divide
    by.

    Args:
        fields: the sparse fields.
        weight: the flat table.
        num_summed: its first columns, of which a list is the sum; of the others it is the mean.
    """

    def __init__(self, fields: Sequence[SparseField], weight: Tensor, num_summed: int) -> None:
        super().__init__()
        self.index = FlatIndex(fields)
        self.embedding_dim = weight.shape[1]
        self.num_summed = self.embedding_dim if self.index.single_valued else num_summed
        table = weight.detach().clone().float()
        if self.num_summed < self.embedding_dim:
            counted = torch.ones(len(table), 1)
            counted[self.index.padding_rows] = 0.0
            table = torch.cat([table, counted], dim=1)
        self.weight = nn.Parameter(table, requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        """(N, W) int32 ids → (N, F, E) float32 sums and means."""
        width = self.embedding_dim
        if self.index.num_fields == 0:
            return self.weight.new_zeros((1, 0, width)).expand(ids.shape[0], -1, -1)
        vectors = torch.nn.functional.embedding(self.index.rows(ids), self.weight)
        if self.index.single_valued:
            return vectors
        parts = [
            vectors[:, columns].sum(dim=1, keepdim=True) if is_list else vectors[:, columns]
            for columns, is_list in self.index.runs
        ]
        sums = torch.cat(parts, dim=1)
        if self.num_summed == width:
            return sums
        means = sums[:, :, self.num_summed : width] / sums[:, :, width:].clamp(min=1.0)
        if self.num_summed == 0:
            return means
        return torch.cat([sums[:, :, : self.num_summed], means], dim=2)
