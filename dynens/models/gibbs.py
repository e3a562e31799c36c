"""The sampler of a Bayesian matrix factorisation: what it hears, its state and what it comes to.

Grades are heard as they are. Where rows have labels only, a label tells the side of a threshold on
which its value is, with noise of deviation 1 (a probit model), and values are drawn: noise of one
size around ±1 would make each of many negatives as sure as a rare positive.

References:
    Albert and Chib, "Bayesian Analysis of Binary and Polychotomous Response Data", JASA 1993.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynens.batch import EncodedBatch, FeatureLayout, FieldPair
from dynens.config.learner import LearnerConfig
from dynens.layers.effects import FieldColumn
from dynens.layers.products import Table, shortened
from dynens.models.base import bootstrap_rows
from dynens.models.effects import Effects, Int32s, most_telling, other_fields
from dynens.models.factors import Array, Prior, PriorState, Rows, draw_vectors, met, scores
from dynens.models.ratings import Ids, grades_or_signs

# Of the larger side's ids times the squares of their vectors; above it these are shorter.
_MOST_PRODUCTS = 40_000_000
_FEWEST_FACTORS = 4
_INITIAL_STD = 0.1
_RAREST = 1e-6
# Logistic and normal distributions are nearest at this ratio of scales (Johnson and Kotz 1970).
_LOGISTIC_SCALE = 1.702


def vector_length(pair: FieldPair, config: LearnerConfig) -> int:
    """Factors of an id: as configured, fewer where the ids are many."""
    most = math.isqrt(_MOST_PRODUCTS // max(pair.sizes))
    return min(config.embedding_dim, max(most, _FEWEST_FACTORS))


@dataclass(frozen=True)
class Heard:
    """The rows that a factorisation is fitted to.

    Attributes:
        users, items: (n,) ids.
        value: (n,) float64 grades, with mean 0 and deviation 1.
        sign: (n,) float64 ±1 by the labels; None where there are grades.
        weight: (n,) float64, 1 in the mean over the rows of either class.
        threshold: the value at which a row is neither positive nor negative; without grades a row
            is positive at the mean rate where 0 is expected of its value.
        level: what the classes' own weights add to the logit.
        sides: (R, F) and (C, F) what users and items have met, rows without a label too.
        others: fields beside the pair, whose values add something.
        other_ids: (n,) of each of these.
    """

    users: Ids
    items: Ids
    value: Tensor
    sign: Array | None
    weight: Tensor
    threshold: float
    level: float
    sides: tuple[Array, Array]
    others: tuple[FieldColumn, ...]
    other_ids: tuple[Int32s, ...]


def heard_rows(
    layout: FeatureLayout,
    config: LearnerConfig,
    train: EncodedBatch,
    unlabelled: EncodedBatch | None,
    seed: int,
) -> Heard:
    """Training rows, and those without a label whose outcome lies between the classes."""
    from scipy.special import ndtri

    pair = layout.largest_pair(config.fields)
    assert pair is not None
    parts = [train] if unlabelled is None else [train, unlabelled]

    def ids_of(column: int) -> Ids:
        return np.concatenate([np.asarray(part.ids[:, column], np.int64) for part in parts])

    users, items = (ids_of(column) for column in pair.columns)
    value: Array = np.asarray(grades_or_signs(train), np.float64)
    weight, level = _weights(train, config, seed)
    if unlabelled is not None:
        num_others, grade = len(unlabelled), unlabelled.grades
        value = np.concatenate([value, np.full(num_others, np.nan) if grade is None else grade])
        weight = np.concatenate([weight, np.ones(num_others)])
    sides = met(users, items, pair.sizes, config.gibbs.side_dim, seed)
    at = np.flatnonzero(np.isfinite(value) & (weight > 0))
    value, weight = value[at], weight[at]
    mean = float(np.average(value, weights=weight))
    spread = float(np.sqrt(np.average((value - mean) ** 2, weights=weight))) or 1.0
    sign, threshold = None, -mean / spread
    if train.grades is None:
        sign, threshold = value, -float(ndtri(np.clip((1 + mean) / 2, _RAREST, 1 - _RAREST)))
    value = (value - mean) / spread
    others = tuple(other_fields(layout, pair, config.fields))
    others = most_telling(others, lambda column: ids_of(column)[at], value, weight)
    return Heard(
        users=users[at],
        items=items[at],
        value=torch.from_numpy(value),
        sign=sign,
        weight=torch.from_numpy(weight),
        threshold=threshold,
        level=level,
        sides=sides,
        others=others,
        other_ids=tuple(ids_of(other.column)[at].astype(np.int32) for other in others),
    )


def _weights(train: EncodedBatch, config: LearnerConfig, seed: int) -> tuple[Array, float]:
    """(N,) weights, 1 in the mean of either class, and the logarithm of these means' ratio.

    A negative that stands for twenty, as only one of twenty was logged, is one observation and not
    twenty: what its weight tells is how rare positives are.
    """
    weight: Array = np.ones(len(train))
    if train.sample_weight is not None:
        weight = np.array(train.sample_weight, np.float64)
    if config.bootstrap:
        weight *= np.bincount(bootstrap_rows(len(train), seed), minlength=len(train))
    assert train.labels is not None
    means = [1.0, 1.0]
    for label in (0, 1):
        mine = ((train.labels > 0) == bool(label)) & (weight > 0)
        if mine.any():
            means[label] = float(weight[mine].mean())
            weight[mine] /= means[label]
    return weight, math.log(means[1] / means[0])


@dataclass(frozen=True)
class Posterior:
    """What the draws come to in the mean, as parts of a logit.

    Attributes:
        product: of the pair.
        effects: (R,) for columns of `ids` beside it.
    """

    product: tuple[Table, Table]
    effects: dict[int, Tensor]


@dataclass
class Moments:
    """Sums over `count` draws.

    Attributes:
        tables: of the users' and items' vectors whose product is the sum of the draws', with the
            biases' sums.
        alpha: of the precision of rows.
    """

    tables: list[Tensor]
    alpha: float = 0.0
    count: int = 0

    def add(self, users: Tensor, items: Tensor, length: int) -> None:
        """One draw's vectors (R, d) and (C, d), biases last; products keep `length` factors."""
        left, right, left_bias, right_bias = self.tables
        left = torch.cat([left, users[:, :-1]], dim=1)
        right = torch.cat([right, items[:, :-1]], dim=1)
        if left.shape[1] > 4 * length:
            left, right = (side.double() for side in shortened(left, right, length))
        self.tables = [left, right, left_bias + users[:, -1], right_bias + items[:, -1]]
        self.count += 1


class Sampler:
    """The Gibbs sampler's state; everything random in a sweep is drawn from (seed, sweep)."""

    def __init__(self, heard: Heard, pair: FieldPair, config: LearnerConfig, seed: int) -> None:
        self.heard, self.seed = heard, seed
        self.length = vector_length(pair, config)
        width = self.length + 1
        self.by_user = Rows.by(heard.users, heard.items, heard.weight, pair.sizes[0])
        self.by_item = Rows.by(heard.items, heard.users, heard.weight, pair.sizes[1])
        self.priors = tuple(Prior(side, width) for side in heard.sides)
        rng = np.random.default_rng(seed)
        self.vectors = [
            torch.from_numpy(rng.standard_normal((size, width)) * _INITIAL_STD)
            for size in pair.sizes
        ]
        self.effects = Effects(heard.others, heard.other_ids, heard.weight.numpy())
        self.alpha = 1.0
        self.sweep = 0
        empty = [torch.zeros(size, 0).double() for size in pair.sizes]
        biases = [torch.zeros(size).double() for size in pair.sizes]
        self.moments = Moments([*empty, *biases])

    def run_to(self, sweep: int, burn_in: int) -> None:
        """Go on until so many sweeps are done; the first `burn_in` count for nothing."""
        while self.sweep < sweep:
            self._step(keep=self.sweep >= burn_in)

    def _step(self, *, keep: bool) -> None:
        """Draw the items' vectors, the users', effects, the rows' precision; add to the moments."""
        rng = np.random.default_rng([self.seed, self.sweep])
        effects = self.effects
        users, items = self.vectors
        of_users, of_items = self.priors
        heard = self._values(rng)
        value = heard - torch.from_numpy(effects.of_rows())
        of_items.draw(items.numpy(), rng)
        _, items = draw_vectors(self.by_item, value, users, of_items, self.alpha, rng)
        of_users.draw(users.numpy(), rng)
        mean, users = draw_vectors(self.by_user, value, items, of_users, self.alpha, rng)
        self.vectors = [users, items]
        rest = (heard - self._products()).numpy()
        effects.draw(rest, self.alpha, rng, keep=keep)
        if self.heard.sign is None:
            error = float(np.sum(self.heard.weight.numpy() * (rest - effects.of_rows()) ** 2))
            self.alpha = float(rng.gamma(len(rest) / 2 + 1, 2 / (2 + error)))
        self.sweep += 1
        if keep:
            self._keep(mean, items)

    def _values(self, rng: np.random.Generator) -> Tensor:
        """(n,) grades; where there are none, values drawn on the labels' sides of the threshold."""
        from scipy.special import ndtr, ndtri

        heard = self.heard
        if heard.sign is None:
            return heard.value
        said = self._products() + torch.from_numpy(self.effects.of_rows()) - heard.threshold
        steep, beyond = np.sqrt(heard.weight.numpy()), heard.sign * said.numpy()
        away = ndtri((1 - rng.random(len(said))) * ndtr(steep * beyond)) / steep
        return torch.from_numpy(heard.threshold + heard.sign * (beyond - away))

    def _products(self) -> Tensor:
        """(n,) what the vectors drawn last say of the rows."""
        users, items = self.vectors
        owner, column = torch.from_numpy(self.heard.users), torch.from_numpy(self.heard.items)
        return scores(users, items, owner, column)

    def _keep(self, users: Tensor, items: Tensor) -> None:
        """Users' vectors are what the draw of the items' lets expect: less noise, same mean."""
        unknown = ~self.by_item.is_known
        items = items.clone()
        items[unknown] = torch.from_numpy(self.priors[1].mean())[unknown]
        self.moments.add(users, items, 2 * self.length)
        self.moments.alpha += self.alpha

    def posterior(self, length: int) -> Posterior:
        """With vectors of that length; the logit of a row is the sum of all parts."""
        moments, scale = self.moments, self._scale()
        left, right, left_bias, right_bias = moments.tables
        left, right = shortened(left, right, length)
        left, left_bias, right_bias = (
            scale * side / moments.count for side in (left, left_bias, right_bias)
        )
        left_bias += self.heard.level - scale * self.heard.threshold
        return Posterior(
            product=((left.float(), left_bias.float()), (right.float(), right_bias.float())),
            effects=self.effects.means(moments.count, scale),
        )

    def _scale(self) -> float:
        """Of a logit over a value: rows are positive where value and noise pass the threshold."""
        return _LOGISTIC_SCALE * math.sqrt(self.moments.alpha / self.moments.count)

    def state(self) -> dict[str, Any]:
        """Everything that a continued run needs."""
        moments = self.moments
        return {
            "vectors": self.vectors,
            "priors": [
                {k: torch.tensor(v, dtype=torch.float64) for k, v in asdict(prior.state).items()}
                for prior in self.priors
            ],
            "alpha": self.alpha,
            "sweep": self.sweep,
            "moments": {f.name: getattr(moments, f.name) for f in fields(Moments)},
            "effects": self.effects.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.vectors, self.alpha, self.sweep = (state[k] for k in ("vectors", "alpha", "sweep"))
        for prior, given in zip(self.priors, state["priors"], strict=True):
            strength = float(given.pop("strength"))
            prior.state = PriorState(**{k: v.numpy() for k, v in given.items()}, strength=strength)
        self.moments = Moments(**state["moments"])
        self.effects.load_state(state["effects"])
