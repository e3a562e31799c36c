"""Collaborative autoencoders over two fields, as a rule the user's and the item's key (AutoRec).

A user's label on an item is told from that user's labels on all items, and the item's side does the
same with its users:

`h_u = σ(b + n_u Σ_{rows (u, i)} (g w_i + s_i))`, `z = z_0 + h_uᵀ v_i + c_i + d_u`,
`logit = (z_user + z_item) / 2`, on average over `branches` such pairs

with `g` the row's grade (1 for a positive and -1 for a negative row, or more and less than that
where the table says how far from the threshold a row is; 0 where it has no label), `s_i` what it
says that there is a row at all, `n_u` the root of the mean number of rows over u's own, and `z_0`
what is expected of an item that nothing is known of. In training each row is left out of the sum at
random, so that nothing is told by itself alone. What the sums come to is known afterwards: a row is
scored by one product of two vectors that are looked up.

References:
    Sedhain et al., "AutoRec: Autoencoders Meet Collaborative Filtering", WWW 2015, eq. 1 and 2,
    here with logistic loss.
    Wu et al., "Collaborative Denoising Auto-Encoders for Top-N Recommender Systems", WSDM 2016
    (inputs left out at random).
    Koren, "Factorization Meets the Neighborhood", KDD 2008, eq. 15 (that there is a row apart from
    what it holds, as SVD++ has it).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from dynens.batch import EncodedBatch, FieldPair, FloatArray
from dynens.config.learner import LearnerConfig
from dynens.errors import TrainingError
from dynens.layers.products import PairProduct, Table, shortened
from dynens.models.base import PLAINLY, FitOptions, FitReport
from dynens.models.defaults import AUTOREC_ROWS_PER_STEP, autorec_steps, resolve_config
from dynens.models.net_learner import WEIGHTS_FILE
from dynens.models.optim import reproducible
from dynens.models.pairs import LONGEST_PRODUCT, PairLearner, ScoredRows
from dynens.models.ratings import (
    Ids,
    Ratings,
    SideBatch,
    grades_or_signs,
    pair_ratings,
    unknown_rate,
)
from dynens.models.settings import save_settings
from dynens.models.training import BaseTrainer, predict_logits, weighted_bce
from dynens.run import intact

_INITIAL_STD = 0.03
# Both sides' tables together; above it vectors are shorter.
_MOST_WEIGHTS = 20_000_000
_CHUNK_ROWS = 16384
# A step holds a few vectors for each row that it scores.
_MOST_TARGETS = 2 * AUTOREC_ROWS_PER_STEP
# In which all ids are gone through.
_PARTS = 24


class Side(nn.Module):
    """The autoencoder of one side: R ids by their rows' C columns, vectors of length H.

    `hidden` (R, H) holds what the sums come to, once `settle` has been called; `base` is the logit
    of an id that nothing is known of.
    """

    hidden: Tensor
    base: Tensor

    def __init__(self, num_rows: int, num_columns: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.register_buffer("base", torch.zeros(()))
        self.encode = nn.Parameter(torch.randn(num_columns, width) * _INITIAL_STD)
        self.seen = nn.Parameter(torch.zeros(num_columns, width))
        self.decode = nn.Parameter(torch.randn(num_columns, width) * _INITIAL_STD)
        self.hidden_bias = nn.Parameter(torch.zeros(width))
        self.column_bias = nn.Parameter(torch.zeros(num_columns))
        self.row_bias = nn.Parameter(torch.zeros(num_rows))
        self.register_buffer("hidden", torch.zeros(num_rows, width))

    def sums(self, batch: SideBatch) -> Tensor:
        """(R, H) before the sigmoid."""
        kept = torch.ones_like(batch.grade)
        if self.training and self.dropout:
            kept = (torch.rand_like(kept) >= self.dropout) / (1 - self.dropout)

        def pooled(table: Tensor, weight: Tensor) -> Tensor:
            return embedding_bag(
                batch.column, table, batch.offsets, mode="sum", per_sample_weights=weight
            )

        total = pooled(self.encode, batch.grade * kept) + pooled(self.seen, kept)
        return total * batch.scale.unsqueeze(1) + self.hidden_bias

    def forward(self, batch: SideBatch, rows: Tensor) -> Tensor:
        """Logits of some of the batch's rows."""
        hidden = torch.sigmoid(self.sums(batch))
        return self._logits(hidden[batch.own[rows]], batch.ids[batch.own[rows]], batch.column[rows])

    def _logits(self, hidden: Tensor, owner: Tensor, column: Tensor) -> Tensor:
        """(n,) of n rows with the hidden vectors (n, H) of their owners."""
        biases = self.base + self.column_bias[column] + self.row_bias[owner]
        return (hidden * self.decode[column]).sum(1) + biases

    def settle(self, ratings: Ratings) -> None:
        """Compute every id's `hidden` from all of its rows."""
        for ids, sums in self._all_sums(ratings):
            self.hidden[ids] = torch.sigmoid(sums)

    def left_out(self, ratings: Ratings, owner: Tensor, column: Tensor, grade: Tensor) -> Tensor:
        """(n,) logits of rows that are among `ratings`, each without its own part of the sum."""
        sums = torch.cat([sums for _, sums in self._all_sums(ratings)])
        logits = []
        for start in range(0, len(owner), _CHUNK_ROWS):
            at = slice(start, start + _CHUNK_ROWS)
            mine, other = owner[at], column[at]
            own = grade[at].unsqueeze(1) * self.encode[other] + self.seen[other]
            hidden = torch.sigmoid(sums[mine] - ratings.scale[mine].unsqueeze(1) * own)
            logits.append(self._logits(hidden, mine, other))
        return torch.cat(logits)

    def _all_sums(self, ratings: Ratings) -> Iterator[tuple[Tensor, Tensor]]:
        for ids in np.array_split(np.arange(len(self.hidden)), _PARTS):
            batch = ratings.of(ids).to(self.hidden.device)
            yield batch.ids, self.sums(batch)


def vector_length(pair: FieldPair, config: LearnerConfig) -> int:
    """H of every side: as configured, less where the ids are many."""
    num_weights = 3 * config.branches * sum(pair.sizes)
    return min(config.embedding_dim, max(_MOST_WEIGHTS // num_weights, 1))


class Branch(nn.Module):
    """Both sides, the users' and the items'."""

    def __init__(self, sizes: tuple[int, int], width: int, dropout: float) -> None:
        super().__init__()
        rows, columns = sizes
        self.user = Side(rows, columns, width, dropout)
        self.item = Side(columns, rows, width, dropout)

    def tables(self) -> tuple[Table, Table]:
        """Each field's vectors (R, 2 H) and biases (R,): a row's product and sum are its logit."""
        user, item = self.user, self.item
        left = torch.cat([user.hidden, item.decode], dim=1) / 2
        right = torch.cat([user.decode, item.hidden], dim=1)
        left_bias = (user.row_bias + item.column_bias + user.base + item.base) / 2
        right_bias = (user.column_bias + item.row_bias) / 2
        return (left.detach(), left_bias.detach()), (right.detach(), right_bias.detach())


class AutoRecNetwork(nn.Module):
    """Branches side by side, which differ by their first weights and by the rows left out."""

    def __init__(self, pair: FieldPair, config: LearnerConfig) -> None:
        super().__init__()
        self.pair = pair
        width, dropout = vector_length(pair, config), config.dropout or 0.0
        self.branches = nn.ModuleList(
            Branch(pair.sizes, width, dropout) for _ in range(config.branches)
        )

    def pairs(self) -> list[Branch]:
        """The branches, typed."""
        return [branch for branch in self.branches if isinstance(branch, Branch)]

    def settle(self, ratings: tuple[Ratings, Ratings]) -> None:
        """Compute what the exported tables need of the training rows."""
        training = self.training
        self.eval()
        with torch.no_grad():
            for branch in self.pairs():
                branch.user.settle(ratings[0])
                branch.item.settle(ratings[1])
        self.train(training)

    def tables(self) -> tuple[Table, Table]:
        """Each field's vectors (R, L) and biases (R,), on average over the branches."""
        lefts, rights = zip(*(branch.tables() for branch in self.pairs()), strict=True)
        left = torch.cat([vectors for vectors, _ in lefts], dim=1) / len(lefts)
        right = torch.cat([vectors for vectors, _ in rights], dim=1)
        left, right = shortened(left, right, min(LONGEST_PRODUCT, left.shape[1]))
        left_bias, right_bias = (
            torch.stack([bias for _, bias in side]).mean(0) for side in (lefts, rights)
        )
        return (left, left_bias), (right, right_bias)


class AutoRecTrainer(BaseTrainer[AutoRecNetwork, tuple[Side, SideBatch]]):
    """The loop with steps of users and of items, in turns, instead of rows.

    Sides and branches share no weights, so that a step leaves those of the others as they are.
    """

    _ratings: tuple[Ratings, Ratings] | None = None

    def build_optimizer(self) -> torch.optim.Optimizer:
        tables: list[nn.Parameter] = []
        biases: list[nn.Parameter] = []
        for name, parameter in self.network.named_parameters():
            (tables if name.endswith(("encode", "seen", "decode")) else biases).append(parameter)
        groups = [
            {"params": tables, "weight_decay": self.options.embedding_l2 or 0.0},
            {"params": biases, "weight_decay": self.options.dense_l2},
        ]
        return torch.optim.Adam(groups, lr=self.options.learning_rate, fused=True)

    def steps_per_epoch(self, train: EncodedBatch) -> int:
        return 2 * len(self.network.branches) * self._parts(train)

    def _parts(self, train: EncodedBatch) -> int:
        """In how many parts the ids of either side are gone through."""
        return min(autorec_steps(len(train)), *self.network.pair.sizes)

    def minibatches(
        self, train: EncodedBatch, rng: np.random.Generator, rows: Ids | None
    ) -> Iterator[tuple[Side, SideBatch]]:
        users, items = self.ratings(train, rows)
        count = self._parts(train)
        parts = (np.array_split(rng.permutation(len(side.count)), count) for side in (users, items))
        for user_ids, item_ids in zip(*parts, strict=True):
            by_user = users.of(user_ids).to(self.device)
            by_item = items.of(item_ids).to(self.device)
            for branch in self.network.pairs():
                yield branch.user, by_user
                yield branch.item, by_item

    def ratings(self, train: EncodedBatch, rows: Ids | None) -> tuple[Ratings, Ratings]:
        """Both sides' training rows."""
        if self._ratings is None:
            train = train if rows is None else train.take(rows)
            self._ratings = pair_ratings(self.network.pair, train, self.how.unlabelled)
        return self._ratings

    def loss(self, batch: tuple[Side, SideBatch]) -> Tensor:
        """Of a sample of the rows where an id has very many, as those without a user may."""
        side, part = batch
        rows = torch.nonzero(~torch.isnan(part.labels)).squeeze(1)
        if not len(rows):
            return 0.0 * side.hidden_bias.sum()
        if len(rows) > _MOST_TARGETS:
            rows = rows[torch.randint(len(rows), (_MOST_TARGETS,), device=self.device)]
        weight = None if part.weight is None else part.weight[rows]
        return weighted_bce(side(part, rows), part.labels[rows], weight)

    def validate(self, valid: EncodedBatch) -> FloatArray:
        assert self._ratings is not None
        self.network.settle(self._ratings)
        product = PairProduct.of(self.network.pair, self.network.tables())
        return predict_logits(ScoredRows(product), valid)


class AutoRecLearner(PairLearner):
    """A `BaseLearner` of two autoencoders."""

    network_: AutoRecNetwork | None = None

    @staticmethod
    def product_width(pair: FieldPair, config: LearnerConfig) -> int:
        return min(LONGEST_PRODUCT, 2 * config.branches * vector_length(pair, config))

    def fit(self, train: EncodedBatch, valid: EncodedBatch, how: FitOptions = PLAINLY) -> FitReport:
        config = resolve_config(self.config, self.layout, len(train))
        with reproducible(self.seed, config.num_threads):
            network = AutoRecNetwork(self.pair, config)
            rate = unknown_rate(self.pair, train)
            for branch in network.pairs():
                for side in (branch.user, branch.item):
                    side.base.fill_(math.log(rate / (1 - rate)))
            network.to(config.device)
            report = AutoRecTrainer(network, config, self.seed, how).fit(train, valid)
        self.config, self.network_ = config, network.cpu().eval()
        return report

    def tables(self) -> tuple[Table, Table]:
        return self._network().tables()

    def training_logits(
        self, train: EncodedBatch, unlabelled: EncodedBatch | None = None
    ) -> FloatArray:
        """(B,) logits, each from the other rows of its user and item: its own tells its label."""
        users, items = pair_ratings(self.pair, train, unlabelled)
        at = [torch.from_numpy(np.asarray(train.ids[:, c], np.int64)) for c in self.pair.columns]
        grade = torch.from_numpy(grades_or_signs(train))
        logits = []
        with torch.no_grad():
            for branch in self._network().pairs():
                logits.append(branch.user.left_out(users, at[0], at[1], grade))
                logits.append(branch.item.left_out(items, at[1], at[0], grade))
        mean: FloatArray = torch.stack(logits).mean(0).numpy()
        return mean

    def save(self, directory: Path) -> None:
        save_settings(self, directory)
        weights = self._network().state_dict()
        np.savez(directory / WEIGHTS_FILE, **{name: w.numpy() for name, w in weights.items()})

    @classmethod
    def load(cls, directory: Path) -> Self:
        learner = cls._with_settings(directory)
        path = directory / WEIGHTS_FILE
        with intact(path), np.load(path, allow_pickle=False) as arrays:
            network = AutoRecNetwork(learner.pair, learner.config)
            network.load_state_dict(_weights_in(arrays, network))
        learner.network_ = network.eval()
        return learner

    def _network(self) -> AutoRecNetwork:
        if self.network_ is None:
            raise TrainingError(f"{self.config.display_name} is not fitted; call fit first.")
        return self.network_


def _weights_in(arrays: Mapping[str, npt.NDArray[Any]], network: nn.Module) -> dict[str, Tensor]:
    """A network's weights; learners of before had one branch, unnamed, and saw no rows as such."""
    weights = {n: w for n, w in network.state_dict().items() if n.endswith(".seen")}
    for name, array in arrays.items():
        known = name if name.startswith("branches.") else f"branches.0.{name}"
        weights[known] = torch.from_numpy(array)
    return weights
