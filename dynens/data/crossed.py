"""Which pairs of categories tell the label together what neither tells alone: a route is its origin
and its destination.

Let r be the label less what a logistic model of all single fields says of it, each category and
each range of a number for itself. Were that all there is, the sums of r over the rows of one cell
(a pair of values), taken over two halves of the rows, would have nothing in common:

    z = Σ_c S₁(c) S₂(c) / sqrt(Σ_c V₁(c) V₂(c)),   S = Σ r and V = Σ r² over the half's rows in c,

is about normal then. A pair that was found joins the model before the next ones are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.data.evidence import Labels, halves
from dynens.data.fields import derived
from dynens.data.numbers import to_numbers
from dynens.data.times import time_part, to_seconds
from dynens.data.values import canonical_codes
from dynens.schema import FieldSpec, VocabularyPolicy

_ROWS = 60_000
_MAX_FIELDS = 60
_MAX_FOUND = 6
_CERTAIN = 6.0  # z
_FEWEST, _MOST = 3, 5000  # values of a field; two are left to the learners
_FEW_NUMBERS = 60  # values of a number that is looked at as a category, too
_ROWS_PER_VALUE, _ROWS_PER_CELL = 20, 5.0
_MIN_FREEDOM = 4  # cells beyond what the single values span
_RANGES = 20
_ROUNDS = 6
_RIDGE, _CELL_RIDGE = 0.1, 2.0  # of p(1 - p) summed over rows
_STEP = 2.0  # logits a value moves at most in one round
_POLICY = VocabularyPolicy(min_count=5)

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Side:
    """A field that may be one of a pair.

    Attributes:
        spec: the field.
        codes: (N,) its values, 0 where missing.
    """

    spec: FieldSpec
    codes: Codes


def crossed_fields(
    fields: Sequence[FieldSpec], sample: pa.Table, labels: Labels, distance: float = 1.0
) -> list[FieldSpec]:
    """The fields, and behind them the pairs of them that tell the label.

    Args:
        fields: as inferred.
        sample: (joined) rows.
        labels: (N,) of these rows.
        distance: rows of the whole table per row of the sample.
    """
    step = -(-len(labels) // _ROWS)
    kept = np.arange(0, len(labels), step)
    sample, labels = sample.take(pa.array(kept)), labels[kept]
    distance *= step
    sides = [side for spec in fields if (side := _side(spec, sample)) is not None]
    sides = [side for side in sides if side.codes.max() * _ROWS_PER_VALUE < len(labels)]
    model = _Additive(labels)
    for side in sides:
        model.add(side.codes, _RIDGE)
    for spec in fields:
        if spec.kind == "numeric" and spec.derive in (None, "epoch_days"):
            model.add(_ranges(spec, sample), _RIDGE)
    model.fit()
    result = list(fields)
    pairs = _pairs(sides[:_MAX_FIELDS], distance)
    half = halves(len(labels))
    while pairs and len(result) < len(fields) + _MAX_FOUND:
        scores = [_score(cells, model.rest, half) for *_, cells in pairs]
        if max(scores) < _CERTAIN:
            break
        best = int(np.argmax(scores))
        first, second, cells = pairs.pop(best)
        why = f"together they tell what neither tells alone (z {scores[best]:.0f})"
        result = _with_pair(result, first.spec, second.spec, why, sample.column_names)
        model.add(cells, _CELL_RIDGE)
        model.fit()
    return result


def _with_pair(
    fields: Sequence[FieldSpec],
    first: FieldSpec,
    second: FieldSpec,
    why: str,
    columns: Sequence[str],
) -> list[FieldSpec]:
    """The fields and the pair, numbers having a category beside them; no name is a column's."""
    result, names = list(fields), []
    for spec in (first, second):
        twin = spec
        if spec.kind == "numeric":
            twin = FieldSpec(
                name=_unused(f"{spec.name}.value", columns),
                column=spec.source,
                entity=spec.entity,
                why="its value, beside its size",
            )
        names.append(twin.name)
        if all(field.name != twin.name for field in result):
            result.append(twin)
    entities = {first.entity, second.entity}
    entity = next(iter(entities)) if len(entities) == 1 else "context"
    result.append(
        FieldSpec(
            name=_unused(" × ".join(names), columns),
            crossed=(names[0], names[1]),
            entity="item" if "item" in entities else entity,
            vocabulary=_POLICY,
            why=why,
        )
    )
    return result


def _unused(name: str, columns: Sequence[str]) -> str:
    while name in columns:
        name += "_"
    return name


def _side(spec: FieldSpec, sample: pa.Table) -> _Side | None:
    """The values of a field, if it may be one of a pair."""
    if spec.kind == "categorical":
        codes = canonical_codes(derived(sample[spec.source], spec))[1].astype(np.int64) + 1
    elif spec.kind == "numeric" and spec.derive is None and spec.unit is None:
        numbers = to_numbers(sample[spec.source]).values
        known = np.isfinite(numbers)
        values, places = np.unique(numbers[known], return_inverse=True)
        if len(values) > _FEW_NUMBERS or (values != np.trunc(values)).any():
            return None
        codes = np.zeros(len(numbers), np.int64)
        codes[known] = places + 1
    else:
        return None
    return _Side(spec, codes) if _FEWEST <= codes.max() <= _MOST else None


def _ranges(spec: FieldSpec, sample: pa.Table) -> Codes:
    column = sample[spec.source]
    if spec.derive is not None:
        numbers = time_part(to_seconds(column, spec.time_format), spec.derive)
    else:
        numbers = to_numbers(column, unit=spec.unit).values
    known = np.isfinite(numbers)
    if not known.any():
        return np.zeros(len(numbers), np.int64)
    edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, _RANGES + 1)[1:-1]))
    return np.where(known, np.searchsorted(edges, numbers) + 1, 0)


def _pairs(sides: Sequence[_Side], distance: float) -> list[tuple[_Side, _Side, Codes]]:
    """Pairs of fields with enough rows per cell; (first, second, cell of each row)."""
    sources = {s.spec.source for s in sides if s.spec.kind == "categorical"}
    sides = [s for s in sides if s.spec.kind == "categorical" or s.spec.source not in sources]
    pairs = []
    for first, second in combinations(sides, 2):
        if first.spec.source == second.spec.source:
            continue
        cells = first.codes * (second.codes.max() + 1) + second.codes
        counts = np.bincount(cells)
        counts = counts[counts > 0]
        sizes = [len(np.unique(side.codes)) for side in (first, second)]
        freedom = len(counts) - sum(sizes) + 1
        if freedom >= _MIN_FREEDOM and len(cells) * distance >= _ROWS_PER_CELL * len(counts):
            pairs.append((first, second, np.unique(cells, return_inverse=True)[1]))
    return pairs


def _score(cells: Codes, rest: Floats, half: npt.NDArray[np.bool_]) -> float:
    """z of the module's equation."""
    size = int(cells.max()) + 1
    sums = [np.bincount(cells[h], rest[h], size) for h in (half, ~half)]
    squares = [np.bincount(cells[h], rest[h] ** 2, size) for h in (half, ~half)]
    return float((sums[0] @ sums[1]) / np.sqrt(max(float(squares[0] @ squares[1]), 1e-12)))


class _Additive:
    """A logistic model of codes, each with a logit of its own.

    Attributes:
        rest: (N,) labels less its probabilities.
    """

    def __init__(self, labels: Labels) -> None:
        self._labels = labels.astype(np.float64)
        rate = float(np.clip(self._labels.mean(), 1e-6, 1 - 1e-6))
        self._logits = np.full(len(labels), np.log(rate / (1 - rate)))
        self._codes: list[tuple[Codes, float]] = []
        self.rest = self._labels - rate

    def add(self, codes: Codes, ridge: float) -> None:
        """Let the model know of codes."""
        self._codes.append((codes, ridge))

    def fit(self) -> None:
        """A few Newton steps along each of the codes in turn."""
        for _ in range(_ROUNDS):
            for codes, ridge in self._codes:
                p = 1 / (1 + np.exp(-self._logits))
                slope = np.bincount(codes, self._labels - p)
                curve = np.bincount(codes, p * (1 - p))
                self._logits += np.clip(slope / (curve + ridge), -_STEP, _STEP)[codes]
        self.rest = self._labels - 1 / (1 + np.exp(-self._logits))
