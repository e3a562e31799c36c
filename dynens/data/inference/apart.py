"""Which numbers measure the same, so that how far apart they are in a row tells the label.

Two dates, the coordinates of two places, an amount and its limit: where two columns go together,
their difference is small beside either, and a network or tree given the columns alone hardly
sees it. For pairs that do, let r be the label less what either column says of it by itself. Over
ten ranges of the difference (of the logarithms, where these tell more)

    χ² = Σ (Σ r)² / (n · mean r²)

over the n rows of each range is about 9 by chance. A pair that was found is known to the next ones.

Columns that do not go together may measure the same, too: a price and a budget, what a thing costs
and what a player has. Of those that lie about the same places their difference must tell twice as
much as their sum, which any other interplay of the two makes it tell as well: 4xy is
(x + y)² - (x - y)².
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from dynens.data.encoding.fields import numbers_of
from dynens.data.inference.drafts import Draft, Sample
from dynens.data.inference.evidence import (
    COPY_AUC,
    LEAK_AUC,
    Labels,
    beyond,
    chi2_of,
    halves,
    held_out_auc,
    ranges,
)
from dynens.data.names import OUTCOME, plain_name
from dynens.metrics import auc
from dynens.schema import FieldSpec

_ROWS = 20_000
_MAX_FIELDS = 100
_MAX_PAIRS = 200  # the closest ones
_MAX_TRIED, _MAX_FOUND = 30, 8
_TOGETHER = 0.7  # correlation from which on two columns go together
_CERTAIN = 60.0  # χ²
_CERTAIN_OF_DATES = 25.0  # of two dates that go together, of which tables have few pairs
_CLEARLY = 1.1
_MORE_THAN_SUM = 2.0
_ALIKE = 2.0  # times that one of two columns may spread more than the other
_MIN_KNOWN = 0.5
_FAR = 10.0  # deviations at which encoders cut a scale off
_RANGES, _OWN_RANGES = 10, 40
_TELLS_MORE = 0.1  # AUC of one of two columns above the other's

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Scale = Literal["standard", "log"]
_SCALES: tuple[Scale, ...] = ("standard", "log")
_WHAT: dict[Scale, str] = {"standard": "how far apart", "log": "how many times larger"}


@dataclass(frozen=True)
class _Pair:
    """Two columns, by their places, and the χ² from which on they count.

    Attributes:
        scale: that both are on.
        together: whether they go together.
    """

    taker: int
    owner: int
    scale: Scale
    together: bool = True
    certain: float = _CERTAIN


@dataclass(frozen=True)
class _Found:
    """A pair that tells the label, by how much, and the AUC of its difference."""

    pair: _Pair
    chi2: float
    auc: float


def apart_fields(draft: Draft, sample: Sample) -> Draft:
    """`apart_from` where the difference of two fields tells the label.

    Where it is the label, the one that is only known afterwards is left out, and the others are
    looked at again; where neither is known to be that one, the difference is no feature, and warns,
    as does one that nearly is the label.
    """
    sample = sample.thinned(_ROWS)
    labels = sample.labels
    chosen = [spec for spec in draft.fields if _is_measure(spec)][:_MAX_FIELDS]
    values = {spec.name: numbers_of(sample.table[spec.source], spec) for spec in chosen}
    left_out: dict[str, str] = {}
    warnings: list[str] = []
    untold: set[frozenset[str]] = set()
    while True:
        chosen = [spec for spec in chosen if spec.source not in left_out]
        numbers = [values[spec.name] for spec in chosen]
        found = _found(chosen, numbers, labels, untold)
        copies = [one for one in found if one.auc >= COPY_AUC]
        for one in copies:
            taker, owner = chosen[one.pair.taker], chosen[one.pair.owner]
            if left_out.keys() & {taker.source, owner.source}:
                continue
            later = _later(one.pair, chosen, numbers, labels)
            if later is None:
                untold.add(frozenset((taker.name, owner.name)))
                warnings.append(_told(one, taker, owner, "gives the label away"))
            else:
                other = owner if later is taker else taker
                why = f"{_WHAT[one.pair.scale]} it and {other.name} are gives the label away"
                left_out[later.source] = f"{why} completely (held-out AUC 1)"
        if not copies:
            break
    fields = [spec for spec in draft.fields if spec.source not in left_out]
    warnings += _tie(fields, chosen, found)
    return draft.then(fields, left_out, warnings)


def _found(
    specs: Sequence[FieldSpec],
    values: Sequence[Floats],
    labels: Labels,
    untold: Collection[frozenset[str]],
) -> list[_Found]:
    """Pairs of these fields that tell the label, but for those of `untold` names."""
    dates = {place for place, spec in enumerate(specs) if spec.derive == "epoch_days"}
    pairs = [
        replace(pair, certain=_CERTAIN_OF_DATES)
        if pair.together and {pair.taker, pair.owner} <= dates
        else pair
        for scale in _SCALES
        for pair in _candidates(values, scale)
        if frozenset((specs[pair.taker].name, specs[pair.owner].name)) not in untold
    ]
    return [
        _Found(pair, chi2, _auc_of(_difference(pair, values), labels))
        for pair, chi2 in _chosen(pairs, values, labels)
    ]


def _auc_of(difference: Floats, labels: Labels) -> float:
    """Of its ranges, on rows held out, or of how large it is, where that separates more."""
    known = np.isfinite(difference)
    by_size = auc(labels[known], difference[known])
    codes = ranges(difference, 2 * _RANGES)
    return max(held_out_auc(codes, labels, halves(len(labels))), by_size, 1 - by_size)


def _later(
    pair: _Pair, specs: Sequence[FieldSpec], values: Sequence[Floats], labels: Labels
) -> FieldSpec | None:
    """Which of the two is only known after the outcome; None: who knows.

    The one whose name says so, or which tells clearly more of the label by itself.
    """
    both = pair.taker, pair.owner
    named = [i for i in both if OUTCOME.fullmatch(plain_name(specs[i].source))]
    if len(named) == 1:
        return specs[named[0]]
    half = halves(len(labels))
    alone = {i: held_out_auc(ranges(values[i], _OWN_RANGES), labels, half) for i in both}
    later = max(both, key=lambda i: alone[i])
    return specs[later] if alone[later] - min(alone.values()) > _TELLS_MORE else None


def _tie(fields: list[FieldSpec], specs: Sequence[FieldSpec], found: Sequence[_Found]) -> list[str]:
    """Give the fields of the pairs what they are apart from; warnings of what may be leaks."""
    place, warnings = {spec.name: at for at, spec in enumerate(fields)}, []
    for one in found:
        pair = one.pair
        taker, owner = (fields[place[specs[i].name]] for i in (pair.taker, pair.owner))
        reason = f"{_WHAT[pair.scale]} it and {owner.name} are tells the label (χ² {one.chi2:.0f})"
        update = {"apart_from": owner.name, "why": f"{taker.why}; {reason}"}
        for spec, changed in ((taker, update), (owner, {})):
            changed = {**changed, "transform": pair.scale}
            fields[place[spec.name]] = spec.model_copy(update=changed)
        if one.auc >= LEAK_AUC:
            warnings.append(_told(one, taker, owner, "nearly tells the label"))
    return warnings


def _told(one: _Found, taker: FieldSpec, owner: FieldSpec, what: str) -> str:
    return (
        f"{_WHAT[one.pair.scale]} {taker.name} and {owner.name} are {what} "
        f"(held-out AUC {one.auc:.3f}); leave one out if it is only known afterwards"
    )


def _is_measure(spec: FieldSpec) -> bool:
    return spec.kind == "numeric" and spec.derive in (None, "epoch_days")


def _candidates(values: Sequence[Floats], scale: Scale) -> list[_Pair]:
    """Pairs of columns that may measure the same, by a scale, the closest first."""
    scaled = [_on_scale(v, scale) for v in values]
    places = [None if v is None else np.nanquantile(v, (0.1, 0.5, 0.9)) for v in scaled]
    found = []
    for i, j in combinations(range(len(values)), 2):
        first, second = scaled[i], scaled[j]
        there, here = places[i], places[j]
        if first is None or second is None or there is None or here is None:
            continue
        correlation = _correlation(first, second)
        together = correlation > _TOGETHER
        if together or _alike(there, here):
            found.append((correlation, _Pair(j, i, scale, together)))
    return [pair for _, pair in sorted(found, key=lambda one: -one[0])[:_MAX_PAIRS]]


def _on_scale(values: Floats, scale: Scale) -> Floats | None:
    """The values, or their logarithms; None where a scale does not suit them."""
    known = values[np.isfinite(values)]
    if len(known) < _MIN_KNOWN * len(values):
        return None
    if scale == "log":
        if known.min() < 0 or known.max() < _FAR:
            return None
        values, known = np.log1p(values), np.log1p(known)
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = float(known.std())
    if not np.isfinite(deviation) or deviation <= 0:
        return None
    far = np.abs(known - known.mean()) > _FAR * deviation
    return None if far.mean() > 1 / _ROWS else values


def _correlation(first: Floats, second: Floats) -> float:
    """Of two columns whose differences are smaller than either of them spreads, else 0."""
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    if len(first) < _MIN_KNOWN * len(both):
        return 0.0
    spread = [float(x.std()) for x in (first, second, first - second)]
    if min(spread) <= 0 or spread[2] >= min(spread[:2]):
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _alike(first: Floats, second: Floats) -> bool:
    """Whether two columns lie about the same places, given their 10, 50 and 90 % quantiles."""
    spreads = first[2] - first[0], second[2] - second[0]
    is_near = abs(first[1] - second[1]) < min(spreads) / 2
    return bool(is_near and max(spreads) < _ALIKE * min(spreads))


def _difference(pair: _Pair, values: Sequence[Floats], sign: float = -1.0) -> Floats:
    """(N,) the difference of the pair's columns on its scale, NaN where one of them is missing.

    With a positive `sign` their sum.
    """
    first, second = values[pair.taker], values[pair.owner]
    if pair.scale == "log":
        first, second = np.log1p(first), np.log1p(second)
    return first + sign * second


def _chi2(
    pair: _Pair,
    values: Sequence[Floats],
    labels: Labels,
    known: Sequence[Codes] = (),
    sign: float = -1.0,
) -> float:
    """χ² of the module's equation, beyond what the ranges of `known` differences tell."""
    own = [ranges(values[i], _OWN_RANGES) for i in (pair.taker, pair.owner)]
    rest = labels.astype(np.float64)
    rest = beyond(rest - rest.mean(), (*own, *known), rounds=3)
    return chi2_of(ranges(_difference(pair, values, sign), _RANGES), rest)


def _chosen(
    pairs: Sequence[_Pair], values: Sequence[Floats], labels: Labels
) -> list[tuple[_Pair, float]]:
    """Pairs that tell the label, one after the other, each beyond those before it.

    Every field is apart from one other at most, and has one scale.
    """
    chi2 = {pair: _chi2(pair, values, labels) for pair in pairs}
    left = sorted((p for p in pairs if chi2[p] > p.certain), key=lambda p: -chi2[p])[:_MAX_TRIED]
    left = [
        p
        for p in left
        if p.together or chi2[p] > _MORE_THAN_SUM * _chi2(p, values, labels, sign=1.0)
    ]
    found: list[tuple[_Pair, float]] = []
    known: list[Codes] = []
    while left and len(found) < _MAX_FOUND:
        if found:
            chi2 = {pair: _chi2(pair, values, labels, known) for pair in left}
        left = [p for p in left if chi2[p] > p.certain]
        if not left:
            break
        best = max(left, key=lambda p: chi2[p] * (_CLEARLY if p.scale == "standard" else 1.0))
        found.append((best, chi2[best]))
        known.append(ranges(_difference(best, values), 2 * _RANGES))
        left = [p for pair in left if (p := _fitting(pair, [f for f, _ in found])) is not None]
    return found


def _fitting(pair: _Pair, found: Sequence[_Pair]) -> _Pair | None:
    """The pair, or the pair the other way round, where it may stand beside those found."""
    owner_of = {f.taker: f.owner for f in found}
    scale_of = {i: f.scale for f in found for i in (f.taker, f.owner)}
    roots = []
    for place in (pair.taker, pair.owner):
        if scale_of.get(place, pair.scale) != pair.scale:
            return None
        root = place
        while root in owner_of:
            root = owner_of[root]
        roots.append(root)
    if roots[0] == roots[1]:
        return None
    if pair.taker not in owner_of:
        return pair
    turned = replace(pair, taker=pair.owner, owner=pair.taker)
    return None if turned.taker in owner_of else turned
