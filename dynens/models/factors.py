"""Gibbs sampling of a matrix factorisation whose priors know what users and items have met.

`y_ui = u_uᵀ v_i + b_u + c_i + ε`, with `ε ~ N(0, 1/(α w))` of a row of weight w and, on either
side, `(u_u, b_u) ~ N(μ + Bᵀ x_u, Λ⁻¹)`, where `x_u` tells what u has met. The sampler draws μ, Λ
and B, too, and α where values are grades (`dynens.models.gibbs`; y is what other fields leave).

References:
    Salakhutdinov and Mnih, "Bayesian Probabilistic Matrix Factorization using Markov Chain Monte
    Carlo", ICML 2008, eq. 11 to 14.
    Simm et al., "Macau: Scalable Bayesian Factorization with High-Dimensional Side Information
    using MCMC", MLSP 2017 (priors with a link to side information).
    Koren, "Factorization Meets the Neighborhood", KDD 2008, eq. 15 (whom somebody has met).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

# Ids that the prior of μ is worth.
_MEAN_IDS = 2.0
# The precision of B's prior before it is drawn for the first time.
_FIRST_STRENGTH = 5.0
# Numbers that tell of one side; above it each id has fewer.
_MOST_SIDE = 50_000_000
_CHUNK_IDS = 2048
_CHUNK_ROWS = 1 << 14


@dataclass(frozen=True)
class Rows:
    """n rows by the ids of one side.

    Attributes:
        order: (n,) where they stand otherwise.
        column: (n,) ids of the other side.
        weight: (n,) float64.
        bounds: (R + 1,) where each id's rows begin.
    """

    order: Tensor
    column: Tensor
    weight: Tensor
    bounds: Tensor

    @classmethod
    def by(cls, owner: Ids, column: Ids, weight: Tensor, num_ids: int) -> Rows:
        """Put together by `owner`."""
        order = torch.from_numpy(np.argsort(owner, kind="stable"))
        count = np.bincount(owner, minlength=num_ids)
        return cls(
            order=order,
            column=torch.from_numpy(column)[order],
            weight=weight[order],
            bounds=torch.from_numpy(np.concatenate([[0], np.cumsum(count)])),
        )

    @property
    def is_known(self) -> Tensor:
        """(R,) ids that have rows."""
        return self.bounds.diff() > 0


def met(
    users: Ids, items: Ids, sizes: tuple[int, int], width: int, seed: int
) -> tuple[Array, Array]:
    """What users (R, F) and items (C, F) have met, in at most `width` numbers.

    Leading singular vectors of the matrix of who met whom, in which n rows of an id weigh 1/√n
    each; squared lengths are 1 in the mean.
    """
    from scipy.sparse import csr_matrix, diags
    from sklearn.utils.extmath import randomized_svd

    width = min(width, min(sizes) - 1, _MOST_SIDE // max(sizes))
    if width < 1:
        return np.zeros((sizes[0], 0)), np.zeros((sizes[1], 0))
    meetings = csr_matrix((np.ones(len(users)), (users, items)), shape=sizes)
    sides = []
    for matrix in (meetings, meetings.T.tocsr()):
        count = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)
        weighed = (diags(1 / np.sqrt(count)) @ matrix).tocsr()
        left, strength, _ = randomized_svd(weighed, width, random_state=seed % 2**32)
        sides.append(left * strength * np.sqrt(len(left) / np.sum(strength**2)))
    return sides[0], sides[1]


class Prior:
    """What is expected of one side's vectors (R, d), the bias last.

    Args:
        side: (R, F) what each id has met, squares of a row 1 in the mean.
        width: d.
    """

    def __init__(self, side: Array, width: int) -> None:
        self.side = side
        self.gram = side.T @ side
        self.state = PriorState(np.zeros(width), np.eye(width), np.zeros((side.shape[1], width)))

    def mean(self) -> Array:
        """(R, d)."""
        mean: Array = self.state.mean + self.side @ self.state.link
        return mean

    def draw(self, vectors: Array, rng: np.random.Generator) -> None:
        """Draw μ, Λ, B and B's own precision, given the vectors."""
        state, (num_ids, width) = self.state, vectors.shape
        num_inputs = self.side.shape[1]
        rest = vectors - self.side @ state.link
        mean = rest.mean(axis=0)
        centred = rest - mean
        pulled = num_ids * _MEAN_IDS / (num_ids + _MEAN_IDS)
        scatter = centred.T @ centred + pulled * np.outer(mean, mean)
        scatter += np.eye(width) + state.strength * state.link.T @ state.link
        freedom = width + num_ids + num_inputs
        state.precision = _wishart(np.linalg.inv(scatter), freedom, rng)
        factor: Array = np.asarray(np.linalg.cholesky(state.precision), np.float64)
        normal = np.linalg.solve(factor.T, rng.standard_normal(width))
        state.mean = (num_ids * mean + np.sqrt(num_ids + _MEAN_IDS) * normal) / (
            num_ids + _MEAN_IDS
        )
        if num_inputs:
            self._draw_link(vectors - state.mean, factor, rng)

    def _draw_link(self, vectors: Array, factor: Array, rng: np.random.Generator) -> None:
        state, shape = self.state, self.state.link.shape
        precision = self.gram + state.strength * np.eye(shape[0])
        mean = np.linalg.solve(precision, self.side.T @ vectors)
        normal = np.linalg.solve(np.linalg.cholesky(precision).T, rng.standard_normal(shape))
        state.link = mean + np.linalg.solve(factor.T, normal.T).T
        squares = float(np.sum((state.link @ factor) ** 2))
        state.strength = float(rng.gamma((1 + state.link.size) / 2, 2 / (1 + squares)))


@dataclass
class PriorState:
    """μ (d,), Λ (d, d), B (F, d) and the precision of B's prior."""

    mean: Array
    precision: Array
    link: Array
    strength: float = _FIRST_STRENGTH


def _wishart(scale: Array, freedom: int, rng: np.random.Generator) -> Array:
    """A draw by Bartlett's decomposition."""
    width = len(scale)
    lower = np.tril(rng.standard_normal((width, width)), -1)
    lower[np.diag_indices(width)] = np.sqrt(rng.chisquare(freedom - np.arange(width)))
    root = np.linalg.cholesky((scale + scale.T) / 2) @ lower
    drawn: Array = root @ root.T
    return drawn


def draw_vectors(
    rows: Rows,
    value: Tensor,
    other: Tensor,
    prior: Prior,
    alpha: float,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """One side's vectors given the rows' values (n,) and the other's vectors (C, d), the bias last.

    Returns:
        What is expected of them and a draw, both (R, d).
    """
    width = other.shape[1]
    upper = torch.triu_indices(width, width)
    inputs = other.clone()
    inputs[:, -1] = 1.0  # the own bias adds to every row
    # In double precision, so that sums over hundreds of thousands of rows leave a matrix definite.
    products = inputs[:, upper[0]] * inputs[:, upper[1]]
    table = torch.cat([products, inputs * other[:, -1:]], dim=1)
    precision, expected = torch.from_numpy(prior.state.precision), torch.from_numpy(prior.mean())
    values = rows.weight * value[rows.order]
    num_ids, num_products = len(expected), len(upper[0])
    mean, drawn = torch.empty_like(expected), torch.empty_like(expected)
    for start in range(0, num_ids, _CHUNK_IDS):
        ids = slice(start, min(start + _CHUNK_IDS, num_ids))
        sums = _sums(rows, ids, table, rows.weight)
        matrix = torch.empty(len(sums), width, width, dtype=torch.float64)
        matrix[:, upper[0], upper[1]] = matrix[:, upper[1], upper[0]] = sums[:, :num_products]
        linear = _sums(rows, ids, inputs, values) - sums[:, num_products:]
        linear = alpha * linear + expected[ids] @ precision
        factor = torch.linalg.cholesky(precision + alpha * matrix)
        mean[ids] = torch.cholesky_solve(linear.unsqueeze(2), factor).squeeze(2)
        normal = torch.from_numpy(rng.standard_normal((len(sums), width, 1)))
        away = torch.linalg.solve_triangular(factor.mT, normal, upper=True).squeeze(2)
        drawn[ids] = mean[ids] + away
    return mean, drawn


def _sums(rows: Rows, ids: slice, table: Tensor, weight: Tensor) -> Tensor:
    """(R, T) sums over the rows of R ids: what the other side's `table` (C, T) has, weighted."""
    bounds = rows.bounds[ids.start : ids.stop + 1]
    mine = slice(int(bounds[0]), int(bounds[-1]))
    at = bounds[:-1] - bounds[0]
    return embedding_bag(rows.column[mine], table, at, mode="sum", per_sample_weights=weight[mine])


def scores(left: Tensor, right: Tensor, owner: Tensor, column: Tensor) -> Tensor:
    """(n,) float64 of rows with the ids `owner` of `left` (R, d) and `column` of `right` (C, d)."""
    left, right = left.float(), right.float()
    parts = []
    for start in range(0, len(owner), _CHUNK_ROWS):
        at = slice(start, start + _CHUNK_ROWS)
        mine, others = left[owner[at]], right[column[at]]
        parts.append((mine[:, :-1] * others[:, :-1]).sum(1) + mine[:, -1] + others[:, -1])
    return torch.cat(parts).double()
