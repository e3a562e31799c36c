"""Which pairs of categories tell the label together what neither tells alone: a route is its origin
and its destination.

Let r be the label less what a logistic model of all single fields says of it, each category and
each range of a number for itself. Over two halves of the rows, the earlier and the later where
times are known, so that what holds for one visit alone tells nothing, and over the cells c (pairs
of values) let

    a = Σ_c S₁(c) S₂(c) / V,   V = Σ_c V₁(c) V₂(c),   S = Σ r and V₁, V₂ = Σ r² in c,

and b and W the same over pairs of rows that share no more than the value of the field that has
more of them. Were single fields all there is, both would be alike (below 0, as a value of few rows
takes much of their noise with it, so that a alone would miss what each user likes), and

    z = (a - b) / sqrt(1 / V + 1 / W)

about normal. A pair that was found joins the model before the next ones are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.data.encoding.fields import derived, numbers_of
from dynens.data.inference.drafts import Draft, Sample
from dynens.data.inference.evidence import Labels, halves, ranges
from dynens.data.names import unused_name
from dynens.data.reading.numbers import to_numbers
from dynens.data.reading.row_hashes import copies_among
from dynens.data.reading.values import canonical_codes
from dynens.metrics import sigmoid
from dynens.schema import FieldSpec, VocabularyPolicy

_ROWS = 60_000
_MAX_FIELDS = 40
_MAX_TRIED, _MAX_FOUND = 30, 6
_CERTAIN = 6.0  # z
_FEWEST, _MOST = 3, 20_000  # values of a field; two are left to the learners
_FEW_NUMBERS = 60  # values of a number that is looked at as a category, too
_ROWS_PER_VALUE, _ROWS_PER_CELL = 4, 2.0
_PLENTY = 5.0  # rows per cell from which on rare cells are left out
_MIN_FREEDOM = 4  # cells beyond what the single values span
_LEAST = 1e-9  # Σ V₁ V₂
_RANGES = 20
_WIDEST = 1_000_000  # cells that are counted without looking which there are
_ROUNDS, _MORE_ROUNDS = 6, 3
_RIDGE, _CELL_RIDGE = 0.1, 2.0  # of p(1 - p) summed over rows
_STEP = 2.0  # logits a value moves at most in one round
_POLICY, _SPARSE = VocabularyPolicy(min_count=5), VocabularyPolicy(min_count=2)

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Side:
    """A field that may be one of a pair.

    Attributes:
        spec: the field.
        codes: (N,) its values, 0 where missing.
        size: distinct codes.
    """

    spec: FieldSpec
    codes: Codes
    size: int


@dataclass(frozen=True)
class _Pair:
    """Two fields."""

    first: _Side
    second: _Side

    def cells(self) -> Codes:
        """(N,) the cell of each row."""
        stride = int(self.second.codes.max()) + 1
        cells = self.first.codes * stride + self.second.codes
        if int(self.first.codes.max()) * stride < _WIDEST:
            return cells
        places: Codes = np.unique(cells, return_inverse=True)[1].astype(np.int64)
        return places

    def rows_per_cell(self) -> float:
        """Rows over cells that have some."""
        cells = self.cells()
        return len(cells) / int(np.count_nonzero(np.bincount(cells)))


def crossed_fields(draft: Draft, sample: Sample) -> Draft:
    """Behind the fields the pairs of them that tell the label."""
    sample = sample.thinned(_ROWS)
    table, labels = sample.table, sample.labels
    sides = _sides(draft.fields, table)
    if len(sides) < 2:
        return draft
    result, half = list(draft.fields), sample.later
    if half is None:
        half = _halves(table)
    model = _single_fields(draft.fields, sides, table, labels)
    pairs = _telling(sides[:_MAX_FIELDS], model.rest, half, sample.distance)
    while pairs and len(result) < len(draft.fields) + _MAX_FOUND:
        scores = [_score(pair, model.rest, half) for pair in pairs]
        best = int(np.argmax(scores))
        if scores[best] < _CERTAIN:
            break
        pair = pairs.pop(best)
        why = f"together they tell what neither tells alone (z {scores[best]:.0f})"
        is_sparse = pair.rows_per_cell() * sample.distance < _PLENTY
        result = _with_pair(result, pair, _SPARSE if is_sparse else _POLICY, why, table)
        model.add(pair.cells(), _CELL_RIDGE)
        model.fit(_MORE_ROUNDS)
    return draft.then(result)


def _halves(table: pa.Table) -> npt.NDArray[np.bool_]:
    """(N,) which rows are of the first half: copies, which would agree with themselves, of one."""
    copies = copies_among([table])
    if copies is None:
        return halves(table.num_rows)
    return (copies & np.uint64(1)).astype(bool)


def _single_fields(
    fields: Sequence[FieldSpec], sides: Sequence[_Side], sample: pa.Table, labels: Labels
) -> _Additive:
    """A model of each category and each range of a number for itself."""
    model = _Additive(labels)
    for side in sides:
        model.add(side.codes, _RIDGE)
    for spec in fields:
        if spec.kind == "numeric" and spec.derive in (None, "epoch_days"):
            numbers = numbers_of(sample[spec.source], spec)
            model.add(ranges(numbers, _RANGES), _RIDGE)
    model.fit(_ROUNDS)
    return model


def _with_pair(
    fields: Sequence[FieldSpec],
    pair: _Pair,
    vocabulary: VocabularyPolicy,
    why: str,
    sample: pa.Table,
) -> list[FieldSpec]:
    """The fields and the pair, numbers having a category beside them; no name is a column's."""
    result, names = list(fields), []
    first, second, columns = pair.first.spec, pair.second.spec, sample.column_names
    for spec in (first, second):
        twin = spec
        if spec.kind == "numeric":
            twin = FieldSpec(
                name=unused_name(f"{spec.name}.value", columns),
                column=spec.source,
                entity=spec.entity,
                decimal=spec.decimal,
                why="its value, beside its size",
            )
        names.append(twin.name)
        if all(field.name != twin.name for field in result):
            result.append(twin)
    entities = {first.entity, second.entity}
    entity = next(iter(entities)) if len(entities) == 1 else "context"
    result.append(
        FieldSpec(
            name=unused_name(" × ".join(names), columns),
            crossed=(names[0], names[1]),
            entity="item" if "item" in entities else entity,
            vocabulary=vocabulary,
            why=why,
        )
    )
    return result


def _sides(fields: Sequence[FieldSpec], sample: pa.Table) -> list[_Side]:
    """The fields that may be one of a pair, each column once."""
    sides = [side for spec in fields if (side := _side(spec, sample)) is not None]
    sources = {side.spec.source for side in sides if side.spec.kind == "categorical"}
    return [s for s in sides if s.spec.kind == "categorical" or s.spec.source not in sources]


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
    is_usable = _FEWEST <= codes.max() <= _MOST and codes.max() * _ROWS_PER_VALUE < len(codes)
    return _Side(spec, codes, len(np.unique(codes))) if is_usable else None


def _telling(
    sides: Sequence[_Side], rest: Floats, half: npt.NDArray[np.bool_], distance: float
) -> list[_Pair]:
    """The pairs with enough rows per cell that tell most, one by one."""
    scored = []
    for first, second in combinations(sides, 2):
        parts = first.spec.derive, second.spec.derive
        if first.spec.source == second.spec.source and None in parts:
            continue  # one value, twice; but hour and weekday of a time are two
        pair = _Pair(first, second)
        cells = pair.cells()
        number = int(np.count_nonzero(np.bincount(cells)))
        freedom = number - first.size - second.size + 1
        if freedom >= _MIN_FREEDOM and len(cells) * distance >= _ROWS_PER_CELL * number:
            score = _score(pair, rest, half)
            if score >= _CERTAIN:
                scored.append((score, pair))
    scored.sort(key=lambda item: -item[0])
    return [pair for _, pair in scored[:_MAX_TRIED]]


def _score(pair: _Pair, rest: Floats, half: npt.NDArray[np.bool_]) -> float:
    """z of the module's equation."""
    larger = max(pair.first, pair.second, key=lambda side: side.size)
    inside = _agreement(pair.cells(), rest, half)
    sums, weights = np.stack([inside, _agreement(larger.codes, rest, half) - inside]).T
    if weights.min() <= _LEAST:
        return 0.0
    first, other = sums / weights
    return float((first - other) / np.sqrt((1 / weights).sum()))


def _agreement(codes: Codes, rest: Floats, half: npt.NDArray[np.bool_]) -> Floats:
    """Σ S₁ S₂ and Σ V₁ V₂ over the codes."""
    size = int(codes.max()) + 1
    values = [np.bincount(codes[h], r[h], size) for r in (rest, rest**2) for h in (half, ~half)]
    return np.array([values[0] @ values[1], values[2] @ values[3]])


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

    def fit(self, rounds: int) -> None:
        """Newton steps along each of the codes in turn."""
        for _ in range(rounds):
            for codes, ridge in self._codes:
                p = sigmoid(self._logits)
                slope = np.bincount(codes, self._labels - p)
                curve = np.bincount(codes, p * (1 - p))
                self._logits += np.clip(slope / (curve + ridge), -_STEP, _STEP)[codes]
        self.rest = self._labels - sigmoid(self._logits)
