"""Embeddings with one table per field, the form that TorchRec can shard over workers.

The weights convert to and from the flat table of `SparseEmbeddings` without loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor

from dynens.batch import SparseField, field_offsets
from dynens.config.learner import Pooling
from dynens.layers.embeddings import POOLINGS, FlatIndex


class FieldTables(nn.Module):
    """Pooled embeddings of every field: (B, W) ids → (B, F, E).

    Table `t{i}` holds field i's rows without the padding row.
    """

    def __init__(
        self, fields: Sequence[SparseField], embedding_dim: int, pooling: Pooling = "sum"
    ) -> None:
        super().__init__()
        self.fields = tuple(fields)
        self.embedding_dim = embedding_dim
        self.keys = [f"f{i}" for i in range(len(fields))]
        self.index = FlatIndex(fields)
        self.collection = EmbeddingBagCollection(
            tables=[
                EmbeddingBagConfig(
                    name=f"t{i}",
                    embedding_dim=embedding_dim,
                    num_embeddings=field.num_embeddings,
                    feature_names=[f"f{i}"],
                    pooling=POOLINGS[pooling],
                )
                for i, field in enumerate(fields)
            ]
        )

    def forward(self, ids: Tensor) -> Tensor:
        pooled = self.collection(self._jagged(ids))
        vectors: Tensor = pooled.values().view(len(ids), len(self.fields), self.embedding_dim)
        # Sharded tables come back grouped by the worker that holds them.
        order = {name: position for position, name in enumerate(pooled.keys())}
        return vectors[:, [order[key] for key in self.keys]]

    def _jagged(self, ids: Tensor) -> KeyedJaggedTensor:
        """Values ordered by field, then row, as TorchRec wants them."""
        ids = ids.to(torch.int64)
        if self.index.single_valued:
            lengths = torch.ones(ids.numel(), dtype=torch.int64)
            return KeyedJaggedTensor(keys=self.keys, values=ids.t().reshape(-1), lengths=lengths)
        blocks = torch.split(ids, [field.width for field in self.fields], dim=1)
        present = [block >= 0 for block in blocks]
        return KeyedJaggedTensor(
            keys=self.keys,
            values=torch.cat([b[p] for b, p in zip(blocks, present, strict=True)]),
            lengths=torch.cat([p.sum(dim=1) for p in present]),
        )


def split_flat_table(fields: Sequence[SparseField], flat: Tensor) -> dict[str, Tensor]:
    """The flat table's rows by table name, without the padding rows."""
    return {
        f"t{i}": flat[offset : offset + field.num_embeddings]
        for i, (field, offset) in enumerate(zip(fields, field_offsets(fields), strict=True))
    }


def join_flat_table(fields: Sequence[SparseField], tables: Mapping[str, Tensor]) -> Tensor:
    """The inverse of `split_flat_table`."""
    parts: list[Tensor] = []
    for i in range(len(fields)):
        table = tables[f"t{i}"]
        parts += [table.new_zeros(1, table.shape[1]), table]
    return torch.cat(parts)
