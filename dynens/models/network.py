"""`CTRNetwork`: embeddings, statistics and a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from dynens.batch import FeatureLayout, FloatArray, IntArray, num_flat_rows
from dynens.config.learner import LearnerConfig
from dynens.layers.blocks import MLP, ByteDropout, branch_linear
from dynens.layers.columns import Block, Columns
from dynens.layers.embeddings import INITIAL_STD, FlatIndex, SparseEmbeddings
from dynens.layers.products import PairProduct
from dynens.models.base import StatSource
from dynens.models.selection import STATS_PER_FIELD, FeatureSelection, select_features

# A standardised encoding beyond this says no more than one at it: an id that no training row held
# has a count of 0, which may lie hundreds of deviations from counts that hardly differ.
_FARTHEST_STAT = 3.0


@dataclass(frozen=True)
class HeadShape:
    """Sizes of a head's inputs: dense (B, num_dense), embeddings (B, num_fields, embedding_dim)."""

    num_dense: int
    num_fields: int
    embedding_dim: int

    @property
    def flat_dim(self) -> int:
        return self.num_dense + self.num_fields * self.embedding_dim


@dataclass(frozen=True)
class HeadInputs:
    """What a head takes: dense inputs (N, D) and embeddings (N, F, E), as blocks of columns."""

    dense: Columns
    embeddings: Columns

    @classmethod
    def of(cls, dense: Tensor, embeddings: Tensor) -> HeadInputs:
        """Every row with values of its own."""
        return cls(Columns.of(dense), Columns.of(embeddings))

    def flat(self) -> Columns:
        """(N, D + F·E): dense inputs, then the embeddings one after the other."""
        blocks = [block for block in self.dense.blocks if len(block.at)]
        width = sum(len(block.at) for block in blocks)
        for block in self.embeddings.blocks:
            size = len(block.at) * block.values.shape[2]
            if size:
                at = range(width, width + size)
                blocks.append(Block(block.values.flatten(1), at, block.is_shared))
            width += size
        return Columns(tuple(blocks))

    def whole(self) -> tuple[Tensor, Tensor]:
        """(N, D) and (N, F, E) as plain tensors."""
        rows = self.dense.own_rows if self.embeddings.own_rows is None else self.embeddings.own_rows
        return self.dense.whole(rows), self.embeddings.whole(rows)

    def with_embeddings(self, change: Callable[[Tensor], Tensor]) -> HeadInputs:
        """The same with `change` applied to the embeddings."""
        blocks = (replace(b, values=change(b.values)) for b in self.embeddings.blocks)
        return HeadInputs(self.dense, Columns(tuple(blocks)))


class Head(nn.Module, ABC):
    """From dense inputs and field embeddings to a logit. Every architecture is one head."""

    def __init__(self, shape: HeadShape, config: LearnerConfig) -> None:
        super().__init__()
        self.shape = shape

    @staticmethod
    def embedding_width(config: LearnerConfig) -> int:
        """Columns of the embedding table the head needs per field."""
        return config.embedding_dim

    @abstractmethod
    def hidden(self, inputs: HeadInputs) -> tuple[Tensor, ...]:
        """(B, D), (B, F, E) → the hidden representations (B, H_k) from the input up."""

    def features(self, inputs: HeadInputs) -> Tensor:
        """(B, D), (B, F, E) → (B, H): the last hidden representation."""
        return self.hidden(inputs)[-1]

    @abstractmethod
    def score(self, features: Tensor, inputs: HeadInputs) -> Tensor:
        """(B, H) and the inputs they are of → (B,) logits."""

    def branch_scores(self, features: Tensor, inputs: HeadInputs) -> Tensor:
        """(B, H) and the inputs they are of → (B, K) logits, which `score` averages.

        Each of them has a loss of its own: the average alone would train like one network.
        """
        return self.score(features, inputs).unsqueeze(1)

    def forward(self, inputs: HeadInputs) -> Tensor:
        """(B, D), (B, F, E) → (B,) logits."""
        return self.score(self.features(inputs), inputs)


class PerceptronHead(Head):
    """A head that ends in one perceptron, or in K of them side by side over the same input.

    Args:
        shape, config: as for `Head`.
        input_dim: of the perceptrons' input.

    References:
        K > 1: Gorishniy et al., "TabM: Advancing Tabular Deep Learning with Parameter-Efficient
        Ensembling", ICLR 2025, with layers of their own for every member ("MLP packed") over
        embeddings that all share.
    """

    def __init__(self, shape: HeadShape, config: LearnerConfig, input_dim: int) -> None:
        super().__init__(shape, config)
        self.branches = config.branches
        dropout = config.dropout or 0.0
        self.mlp = MLP(input_dim, config.hidden_units, dropout, self.branches)
        self.output = branch_linear(self.mlp.output_dim // self.branches, 1, self.branches)

    @abstractmethod
    def perceptron_input(self, inputs: HeadInputs) -> Columns:
        """(B, D), (B, F, E) → (B, input_dim)."""

    def hidden(self, inputs: HeadInputs) -> tuple[Tensor, ...]:
        return self.mlp.hidden(self.perceptron_input(inputs))

    def branch_scores(self, features: Tensor, inputs: HeadInputs) -> Tensor:
        logits: Tensor = self.output(features)
        return logits

    def score(self, features: Tensor, inputs: HeadInputs) -> Tensor:
        logits = self.branch_scores(features, inputs)
        return logits.squeeze(1) if self.branches == 1 else logits.mean(dim=1)


HeadClass = type[Head]


class StatInputs(nn.Module):
    """Target and count encodings as standardised dense inputs.

    Training rows bring leakage-free values; every other row reads the frozen table. Both go
    through the mean and standard deviation of the leakage-free values, and no value lies farther
    than three deviations from the mean (of a list's values their mean, which varies less).
    """

    table: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, selection: FeatureSelection, table: FloatArray) -> None:
        super().__init__()
        self.index = FlatIndex(selection.fields)
        width = len(selection.stat_columns)
        self.register_buffer("table", torch.from_numpy(np.array(table, dtype=np.float32)))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, stats: FloatArray) -> None:
        """Learn the standardisation from the (rows, columns) values of the training rows."""
        self.mean.copy_(torch.from_numpy(stats.mean(axis=0, dtype=np.float64)))
        std = stats.std(axis=0, dtype=np.float64)
        self.scale.copy_(torch.from_numpy(1.0 / np.maximum(std, 1e-3)))

    def fill_unseen(self, count: Tensor) -> None:
        """Give values that training never met the mean count of their field.

        A count of zero may be far from all that training rows had, where every value of the field
        is common. The target of such a value is the base rate anyway.

        Args:
            count: (rows,) how often each row of the flat table was read.
        """
        field = torch.repeat_interleave(self.index.sizes)
        mean = self.mean.view(STATS_PER_FIELD, -1)[1, field]
        self.table[:, 1] = torch.where(count > 0, self.table[:, 1], mean)

    def standardised_table(self) -> Tensor:
        """(rows, 2): standardised encodings, not yet `bounded`, with padding rows zero."""
        table = self._of_fields(self.table, torch.repeat_interleave(self.index.sizes))
        table[self.index.padding_rows] = 0.0
        return table

    def _of_fields(self, values: Tensor, field: Tensor) -> Tensor:
        """(..., R, 2) raw encodings of R values of the (R,) fields → standardised ones."""
        mean = self.mean.view(STATS_PER_FIELD, -1).T[field]
        scale = self.scale.view(STATS_PER_FIELD, -1).T[field]
        return (values - mean) * scale

    @staticmethod
    def bounded(values: Tensor) -> Tensor:
        """Standardised encodings, none of them far from the mean."""
        return values.clamp(-_FARTHEST_STAT, _FARTHEST_STAT)

    def standardise(self, stats: Tensor) -> Tensor:
        """(B, 2F) raw encodings of rows → standardised ones."""
        return self.bounded((stats - self.mean) * self.scale)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, W) ids → (B, 2F) standardised encodings, read from the frozen table."""
        vectors = torch.nn.functional.embedding(self.index.rows(ids), self.table)
        vectors = self._of_fields(vectors, self.index.pooling.argmax(dim=1))
        vectors = vectors * (ids >= 0).unsqueeze(2)  # padding adds nothing to a list's mean
        return self.bounded(self.index.pool(vectors, ids).transpose(1, 2).flatten(1))


class CTRNetwork(nn.Module):
    """Embeddings, what fields that belong together say, optional statistics and a head.

    Args:
        layout: the encoded rows.
        config: sizes and the selection of features.
        head_class: the architecture.
        stats: the frozen target and count encodings, used when `config.use_stats`.
    """

    id_columns: Tensor
    dense_columns: Tensor
    stat_columns: Tensor

    def __init__(
        self,
        layout: FeatureLayout,
        config: LearnerConfig,
        head_class: HeadClass,
        stats: StatSource | None,
    ) -> None:
        super().__init__()
        selection = select_features(layout, config.fields)
        self.selection = selection
        self.selects_all = config.fields is None and not layout.only_apart
        for name, columns in (
            ("id_columns", selection.id_columns),
            ("dense_columns", selection.dense_columns),
            ("stat_columns", selection.stat_columns),
        ):
            self.register_buffer(name, torch.tensor(columns, dtype=torch.int64), persistent=False)
        use_stats = config.use_stats and stats is not None and bool(selection.fields)
        self.stat_inputs = (
            StatInputs(selection, selection.table(stats)) if use_stats and stats else None
        )
        pair = layout.largest_pair(config.fields) if config.product_width else None
        self.product = None if pair is None else PairProduct(pair, config.product_width)
        num_dense = len(selection.dense_columns) + selection.num_pairs + (pair is not None)
        num_dense += len(selection.stat_columns) if use_stats else 0
        width = head_class.embedding_width(config)
        self.shape = HeadShape(num_dense, len(selection.fields), width)
        self.embeddings: nn.Module = SparseEmbeddings(
            selection.fields,
            width,
            config.optimizer.embedding_optimizer == "lazy_adam",
            config.embedding_std or INITIAL_STD,
            config.list_pooling or "mean",
        )
        self.embedding_dropout = ByteDropout(config.embedding_dropout)
        self.head = head_class(self.shape, config)
        if config.random_features:
            self._freeze_features()

    def _freeze_features(self) -> None:
        """Leave the head's last layer alone to train, over embeddings of unit variance.

        References:
            Rahimi and Recht, "Random Features for Large-Scale Kernel Machines", NIPS 2007.
        """
        assert isinstance(self.head, PerceptronHead)
        self.requires_grad_(False)
        for table in self.embeddings.parameters():
            table.div_(table.std())
        self.head.output.requires_grad_(True)

    def fit_stats(self, stats: FloatArray | None) -> None:
        """Learn how to standardise the statistics, from those of the training rows."""
        if self.stat_inputs is not None and stats is not None:
            self.stat_inputs.fit(np.asarray(stats)[:, self.stat_columns.numpy()])

    def fill_unseen(self, ids: IntArray) -> None:
        """Settle what values are that none of the (N, W) training rows has."""
        if isinstance(self.embeddings, SparseEmbeddings) and self.selection.fields:
            offsets = self.embeddings.index.offsets.numpy()
            count = np.zeros(num_flat_rows(self.selection.fields), np.int64)
            for column, offset in zip(self.selection.id_columns, offsets, strict=True):
                count += np.bincount(ids[:, column] + offset, minlength=len(count))
            self.embeddings.fill_unseen(torch.from_numpy(count))
            if self.stat_inputs is not None:
                self.stat_inputs.fill_unseen(torch.from_numpy(count))

    @property
    def hidden_dims(self) -> tuple[int, ...]:
        """Widths of the head's hidden representations, by a pass over one row of zeros."""
        training = self.head.training
        self.head.eval()
        with torch.no_grad():
            shape = self.shape
            device = next(self.head.parameters()).device
            dense = torch.zeros(1, shape.num_dense, device=device)
            embeddings = torch.zeros(1, shape.num_fields, shape.embedding_dim, device=device)
            hidden = self.head.hidden(HeadInputs.of(dense, embeddings))
        self.head.train(training)
        return tuple(part.shape[1] for part in hidden)

    def inputs(self, dense: Tensor, ids: Tensor, stats: Tensor | None) -> HeadInputs:
        """What the head takes."""
        more = []
        for kind in self.selection.pairs:
            rows = kind.rows(dense, ids)
            more.append(kind.function(rows, rows, kind.pairs))
        if self.product is not None:
            more.append(self.product(ids).unsqueeze(1))
        if not self.selects_all:
            dense = dense.index_select(1, self.dense_columns)
            ids = ids.index_select(1, self.id_columns)
            stats = None if stats is None else stats.index_select(1, self.stat_columns)
        if self.stat_inputs is not None:
            values = self.stat_inputs(ids) if stats is None else self.stat_inputs.standardise(stats)
            more.append(values)
        if more:
            dense = torch.cat([dense, *more], dim=1)
        return HeadInputs.of(dense, self.embedding_dropout(self.embeddings(ids)))

    def branch_logits(self, dense: Tensor, ids: Tensor, stats: Tensor | None = None) -> Tensor:
        """As `forward`, (B, K): the logits of the head's branches."""
        inputs = self.inputs(dense, ids, stats)
        return self.head.branch_scores(self.head.features(inputs), inputs)

    def forward(self, dense: Tensor, ids: Tensor, stats: Tensor | None = None) -> Tensor:
        """Logits of encoded rows.

        Args:
            dense: (B, num_dense) float32.
            ids: (B, ids_width) int32.
            stats: (B, 2F) leakage-free encodings of training rows; None: the frozen tables'.

        Returns:
            (B,) logits.
        """
        logits: Tensor = self.head(self.inputs(dense, ids, stats))
        return logits
