"""Draws of what the values of further fields add to the rows of a factorisation.

`y = … + Σ_f w_f[x_f] + ε` with `w_f ~ N(0, 1/λ_f)`: a row has one value of each field, so that the
weights of a field are independent of one another, given all else.

References:
    Freudenthaler, Schmidt-Thieme and Rendle, "Bayesian Factorization Machines", NIPS workshop on
    sparse representation, 2011 (first-order weights with a precision for each group of them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynens.batch import FeatureLayout, FieldPair
from dynens.layers.effects import FieldColumn
from dynens.models.factors import Array, Ids

Int32s = npt.NDArray[np.int32]

# Values of the fields that are read in every sweep; above it the most telling fields are.
_MOST_VALUES = 20_000_000


def other_fields(
    layout: FeatureLayout, pair: FieldPair, names: Sequence[str] | None
) -> list[FieldColumn]:
    """The fields of one value (of `names`) beside a pair."""
    return [
        FieldColumn(columns.start, field.num_embeddings, number < layout.context_fields)
        for number, (field, columns) in enumerate(layout.columns())
        if field.width == 1
        and columns.start not in pair.columns
        and (names is None or field.name in names)
    ]


class Effects:
    """The weights of some fields' values, as drawn last, and their sums.

    Args:
        fields: F of them.
        ids: F times (n,) ids of the rows.
        weight: (n,) of the rows.
    """

    def __init__(self, fields: Sequence[FieldColumn], ids: Sequence[Int32s], weight: Array) -> None:
        self.fields, self._ids, self._weight = tuple(fields), tuple(ids), weight
        self._count = [np.bincount(i, weight, f.size) for f, i in zip(fields, ids, strict=True)]
        self._drawn = [np.zeros(field.size) for field in fields]
        self._precision = [1.0] * len(fields)
        self.sums = [np.zeros(field.size) for field in fields]

    def of_rows(self) -> Array:
        """(n,) what is added to each row."""
        added: Array = np.zeros(len(self._weight))
        for drawn, ids in zip(self._drawn, self._ids, strict=True):
            added += drawn[ids]
        return added

    def draw(self, rest: Array, alpha: float, rng: np.random.Generator, *, keep: bool) -> None:
        """Draw the weights, field by field.

        Args:
            rest: (n,) what the rest of the model leaves of the rows' values.
            alpha: the precision of a row of weight 1.
            rng: source of the draws.
            keep: whether to add what is expected of the weights to the sums.
        """
        left = rest - self.of_rows()
        for number, (ids, count) in enumerate(zip(self._ids, self._count, strict=True)):
            left += self._drawn[number][ids]
            known = count > 0
            precision = self._precision[number] + alpha * count
            mean = alpha * np.bincount(ids, self._weight * left, len(count)) / precision
            drawn = mean + rng.standard_normal(len(count)) / np.sqrt(precision)
            self._drawn[number] = np.where(known, drawn, 0.0)
            left -= self._drawn[number][ids]
            squares = float(np.sum(self._drawn[number] ** 2))
            freedom = 1 + np.count_nonzero(known)
            self._precision[number] = float(rng.gamma(freedom / 2, 2 / (1 + squares)))
            if keep:
                self.sums[number] += mean

    def state(self) -> dict[str, Any]:
        """Everything that a continued run needs."""
        return {
            "drawn": [torch.from_numpy(x) for x in self._drawn],
            "sums": [torch.from_numpy(x) for x in self.sums],
            "precision": self._precision,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self._drawn, self.sums = ([x.numpy() for x in state[k]] for k in ("drawn", "sums"))
        self._precision = state["precision"]

    def means(self, count: int, scale: float) -> dict[int, Tensor]:
        """(R,) of each column of `ids`, `scale` times the mean over `count` draws."""
        return {
            field.column: torch.from_numpy(scale * total / count).float()
            for field, total in zip(self.fields, self.sums, strict=True)
        }


def most_telling(
    fields: Sequence[FieldColumn],
    ids_of: Callable[[int], Ids],
    value: Array,
    weight: Array,
) -> tuple[FieldColumn, ...]:
    """As many of the fields as n rows leave time for.

    Those go first whose values' means differ most, beyond what they do by chance.

    Args:
        fields: to choose from.
        ids_of: (n,) ids of a column.
        value: (n,), of mean 0 and deviation 1.
        weight: (n,).
    """

    def telling(field: FieldColumn) -> float:
        ids = ids_of(field.column)
        count, total = np.bincount(ids, weight), np.bincount(ids, weight * value)
        known = count > 0
        return float(np.sum(total[known] ** 2 / count[known])) - np.count_nonzero(known)

    most = _MOST_VALUES // max(len(value), 1)
    kept = fields if len(fields) <= most else sorted(fields, key=telling, reverse=True)[:most]
    return tuple(kept)
