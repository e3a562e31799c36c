"""The inference twin: a learner's function as plain Gathers and matrix products, for export.

What the candidates of a ranking request share is looked up and multiplied for one row where the
caller says so (`context_rows` = 1), and for every row otherwise. One graph serves both.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dynens.batch import num_flat_rows
from dynens.layers.columns import Block, Columns, take_columns
from dynens.layers.embeddings import FlatEmbeddings, SparseEmbeddings
from dynens.layers.pairs import PairInputs
from dynens.models.network import CTRNetwork, HeadInputs, StatInputs
from dynens.models.selection import STATS_PER_FIELD, FeatureGroup, FeatureSelection


class GroupInputs(nn.Module):
    """One group's dense features and pooled rows of a table.

    Args:
        group: which columns it reads.
        weight: the group's rows of the flat table.
        num_summed: its first columns, of which a list is the sum.
    """

    def __init__(self, group: FeatureGroup, weight: Tensor, num_summed: int) -> None:
        super().__init__()
        self.group = group
        self.table = FlatEmbeddings(group.fields, weight, num_summed)

    def forward(
        self, dense: Tensor, ids: Tensor, context_rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(N, D), (N, W) → (M, D_g), (M, F_g, E); M = N unless the group is context."""
        if self.group.is_context and context_rows is not None:
            dense, ids = dense[:context_rows], ids[:context_rows]
        dense = take_columns(dense, self.group.dense_columns)
        ids = take_columns(ids, self.group.id_columns)
        return dense, self.table(ids)


def in_order(groups: Sequence[FeatureGroup], kinds: Sequence[Sequence[Tensor]]) -> Columns:
    """Blocks of each kind of input side by side, within a kind group after group.

    Args:
        groups: the groups.
        kinds: for each kind, the groups' (M, w) tensors.
    """
    blocks: list[Block] = []
    start = 0
    for kind in kinds:
        for group, values in zip(groups, kind, strict=True):
            width = values.shape[1]
            if width:
                blocks.append(Block(values, range(start, start + width), group.is_context))
            start += width
    if not blocks:
        blocks.append(Block(kinds[0][-1], range(0)))
    return Columns(tuple(blocks))


def pair_kinds(
    selection: FeatureSelection,
    denses: Sequence[Tensor],
    dense: Tensor,
    ids: Tensor,
    context_rows: Tensor | None,
) -> list[list[Tensor]]:
    """Groups' (M, p) inputs of each kind of pairs; nothing where no fields belong together.

    Args:
        selection: the pairs.
        denses: the groups' dense features.
        dense: (N, D) rows.
        ids: (N, W) rows.
        context_rows: how many of them stand for the context.
    """
    return [
        _pair_kind(kind, denses, kind.rows(dense, ids), context_rows) for kind in selection.pairs
    ]


def _pair_kind(
    kind: PairInputs, denses: Sequence[Tensor], rows: Tensor, context_rows: Tensor | None
) -> list[Tensor]:
    """What pairs say is the context's where both sides are, and every row's own otherwise."""
    if len(denses) == 1:
        return [kind.function(rows, rows, kind.pairs)]
    context = rows if context_rows is None else rows[:context_rows]
    parts = (
        [p for p in kind.pairs if p.is_context],
        [p for p in kind.pairs if not p.is_context],
    )
    return [
        kind.function(rows, context, part) if part else dense[:, :0]
        for part, dense in zip(parts, denses, strict=True)
    ]


def stat_kinds(stats: Sequence[Tensor]) -> list[list[Tensor]]:
    """Groups' (M, F_g, 2) statistics as all target encodings and all count encodings."""
    if len(stats) == 1:
        return [[stats[0].transpose(1, 2).flatten(1)]]
    return [[s[:, :, kind] for s in stats] for kind in range(STATS_PER_FIELD)]


def group_tables(selection: FeatureSelection, weight: Tensor) -> list[Tensor]:
    """The flat table's rows that belong to each group."""
    sizes = [num_flat_rows(group.fields) for group in selection.groups()]
    return list(torch.split(weight, sizes))


class InferenceTwin(nn.Module):
    """The same function as a `CTRNetwork` in evaluation mode.

    TorchRec's collection is replaced by flat Gathers over a copy of its weights. Standardised
    statistics become further columns of the same table, since a mean of standardised values is the
    standardised mean. The twin shares no memory with `network`.
    """

    def __init__(self, network: CTRNetwork) -> None:
        super().__init__()
        embeddings = network.embeddings
        assert isinstance(embeddings, SparseEmbeddings)
        weight = embeddings.weight.detach()
        if network.stat_inputs is not None:
            weight = torch.cat([weight, network.stat_inputs.standardised_table()], dim=1)
        self.embedding_dim = network.shape.embedding_dim
        self.folds_stats = network.stat_inputs is not None
        selection = network.selection
        num_summed = self.embedding_dim if embeddings.pooling == "sum" else 0
        self.groups = nn.ModuleList(
            GroupInputs(group, table, num_summed)
            for group, table in zip(
                selection.groups(), group_tables(selection, weight), strict=True
            )
        )
        self.selection = selection
        self.feature_groups = selection.groups()
        self.product = copy.deepcopy(network.product)
        self.head = copy.deepcopy(network.head)
        self.eval()

    def inputs(self, dense: Tensor, ids: Tensor, context_rows: Tensor | None = None) -> HeadInputs:
        """What the head takes, context columns with as many rows as `context_rows` says."""
        denses, vectors = zip(
            *(group(dense, ids, context_rows) for group in self.groups), strict=True
        )
        kinds = [denses, *pair_kinds(self.selection, denses, dense, ids, context_rows)]
        if self.product is not None:
            product = self.product(ids, context_rows).unsqueeze(1)
            kinds.append([*(own[:, :0] for own in denses[:-1]), product])
        if self.folds_stats:
            stats = [StatInputs.bounded(v[:, :, self.embedding_dim :]) for v in vectors]
            kinds += stat_kinds(stats)
            vectors = tuple(v[:, :, : self.embedding_dim] for v in vectors)
        groups = self.feature_groups
        return HeadInputs(in_order(groups, kinds), in_order(groups, [vectors]))

    def forward(self, dense: Tensor, ids: Tensor, context_rows: Tensor | None = None) -> Tensor:
        """Logits of encoded rows.

        Args:
            dense: (N, num_dense) float32.
            ids: (N, ids_width) int32.
            context_rows: scalar M: 1 where all rows agree in the context columns, else N, which
                None stands for.

        Returns:
            (N,) logits.
        """
        logits: Tensor = self.head(self.inputs(dense, ids, context_rows))
        return logits


class MeanLogits(nn.Module):
    """The mean of several networks' logits (the members of a snapshot ensemble)."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, *inputs: Tensor) -> Tensor:
        """What each member takes → (N,) logits."""
        logits = [member(*inputs) for member in self.members]
        return torch.stack(logits).mean(dim=0)
