"""Which fields hold the same values, so that whether they meet in a row tells the label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.data.evidence import Labels
from dynens.data.fields import derived
from dynens.data.lists import CHARACTERS, split_lists
from dynens.data.values import canonical_codes
from dynens.schema import FieldSpec

_ROWS = 50_000
_MIN_DISTINCT = 10  # whether two of fewer values are equal, any learner finds out by itself
_MIN_MEETINGS = 20  # rows
_MIN_OVERLAP = 0.2
_CERTAIN = 5.0  # standard errors
_SMOOTHING = 10.0

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Values:
    """The values of one field.

    Attributes:
        spec: the field.
        codes: (V,) all values end to end; equal values of any field have equal codes.
        rows: (V,) the row of each.
    """

    spec: FieldSpec
    codes: Codes
    rows: Codes

    @property
    def is_list(self) -> bool:
        return self.spec.kind == "multi_valued"


@dataclass(frozen=True)
class _Meeting:
    """Rows in which two fields have a value in common.

    Attributes:
        taker, owner: the fields.
        error: how many standard errors more (or fewer) of these rows are positive than their
            owner's values (and, where both hold one value a row, the taker's) let expect.
        rates: positive share of these rows, and of the others.
    """

    taker: str
    owner: str
    error: float
    rates: tuple[float, float]

    @property
    def why(self) -> str:
        return (
            f"its values are those of {self.owner}: where they meet {self.rates[0]:.0%} are "
            f"positive, elsewhere {self.rates[1]:.0%}"
        )


def with_shared_vocabularies(
    fields: Sequence[FieldSpec], sample: pa.Table, labels: Labels
) -> list[FieldSpec]:
    """The fields, with `vocabulary_of` where a meeting of two fields' values tells the label.

    It must tell more than the values themselves do: what is popular meets more often, too.

    Args:
        fields: as inferred.
        sample: (joined) rows.
        labels: (N,) of these rows.
    """
    sample, labels = sample.slice(0, _ROWS), labels[:_ROWS]
    values = _values_of(fields, sample)
    found = [m for a, b in combinations(values, 2) if (m := _meeting(a, b, labels)) is not None]
    owners: dict[str, _Meeting] = {}
    for meeting in sorted(found, key=lambda m: -abs(m.error)):
        taken = {m.owner for m in owners.values()}
        if meeting.taker not in owners | dict.fromkeys(taken) and meeting.owner not in owners:
            owners[meeting.taker] = meeting
    return [_with_owner(spec, owners.get(spec.name)) for spec in fields]


def _with_owner(spec: FieldSpec, meeting: _Meeting | None) -> FieldSpec:
    if meeting is None:
        return spec
    why = "; ".join(filter(None, (spec.why, meeting.why)))
    return spec.model_copy(update={"vocabulary_of": meeting.owner, "why": why})


def _values_of(fields: Sequence[FieldSpec], sample: pa.Table) -> list[_Values]:
    """The values of the fields that may share some; texts do not, whose words are their own."""
    texts: dict[str, int] = {}
    result = []
    for spec in fields:
        column = sample[spec.source]
        lengths = np.ones(len(column), np.int64)
        if spec.kind == "multi_valued" and spec.separator not in (None, CHARACTERS):
            column, lengths = split_lists(column, spec.separator)
        elif spec.kind != "categorical" or spec.derive:
            continue
        distinct, codes = canonical_codes(derived(column, spec))
        if len(distinct) < _MIN_DISTINCT:
            continue
        global_codes = [texts.setdefault(text, len(texts)) for text in distinct.to_pylist()]
        known = codes >= 0
        rows = np.repeat(np.arange(len(lengths)), lengths)
        result.append(_Values(spec, np.array(global_codes)[codes[known]], rows[known]))
    return result


def _meeting(a: _Values, b: _Values, labels: Labels) -> _Meeting | None:
    """What rows in which two fields meet tell of the label, or None where that is nothing."""
    taker, owner = (a, b) if a.is_list and not b.is_list else (b, a)
    common = len(np.intersect1d(a.codes, b.codes))
    fewer = min(len(np.unique(v.codes)) for v in (a, b))
    if common < _MIN_DISTINCT or common < _MIN_OVERLAP * fewer:
        return None
    size = int(max(taker.codes.max(), owner.codes.max())) + 1
    in_taker, in_owner = (values.rows * size + values.codes for values in (taker, owner))
    meets = np.zeros(len(labels), bool)
    meets[np.intersect1d(in_taker, in_owner) // size] = True
    if not _MIN_MEETINGS <= meets.sum() <= len(labels) - _MIN_MEETINGS:
        return None
    rest = labels.astype(np.float64) - labels.mean()
    for values in (owner, taker):
        if not values.is_list:
            rest = _beyond(values, rest)
    gap = rest[meets].mean() - rest[~meets].mean()
    noise = np.sqrt(rest[meets].var() / meets.sum() + rest[~meets].var() / (~meets).sum())
    error = float(gap / max(noise, 1e-12))
    if abs(error) < _CERTAIN:
        return None
    rates = (float(labels[meets].mean()), float(labels[~meets].mean()))
    return _Meeting(taker.spec.name, owner.spec.name, error, rates)


def _beyond(values: _Values, rest: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What is left of (N,) `rest` when each value's smoothed mean is taken away."""
    counts = np.bincount(values.codes)
    sums = np.bincount(values.codes, rest[values.rows])
    left = rest.copy()
    left[values.rows] -= (sums / (counts + _SMOOTHING))[values.codes]
    return left
