"""Which fields hold the same values, so that whether they meet in a row tells the label.

For a row let m say whether two fields have a value in common, and q how likely that was, had the
one field drawn its value at random. The score test

    z = Σ (m - q) r / sqrt(max(Σ (m - q)² r², Σ (m - q)² · mean r²))

is over r, the label less what single fields say of it: the values of each, the length of a list,
and the user. (The first sum is too small where positives are rare and none of them meets.) What is
popular, a long list and an active user meet more often, and tell nothing more by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.encoding.fitting import MAX_LEN
from dynens.data.inference.drafts import Draft, Sample
from dynens.data.inference.evidence import COPY_AUC, LEAK_AUC, Labels, beyond
from dynens.data.reading.lists import split_lists, takes_beginnings
from dynens.data.reading.values import canonical_codes
from dynens.schema import FieldSpec

ROWS = 20_000
_LISTED = 1_000_000  # values of a list column that are looked at
_MIN_DISTINCT = 10  # two of fewer values are found as a pair of categories (`crossed`)
_MIN_NAMES = 5  # the same names mean the same, which tells with fewer rows than such a pair does
_MIN_LISTED = 3
_MIN_MEETINGS = 20  # rows
_USUAL = 0.5  # of the rows
_MIN_OVERLAP = 0.2
_MAX_PAIRS = 1000
_CERTAIN = 5.0  # standard errors

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Values:
    """The values of one field that would be encoded.

    Attributes:
        spec: the field.
        codes: (V,) all values end to end; equal values of any field have equal codes.
        rows: (V,) the row of each.
        single: (N,) the code of each row, -1 where it has none; of lists their length.
        are_names: whether most of the distinct values have letters.
    """

    spec: FieldSpec
    codes: Codes
    rows: Codes
    single: Codes
    are_names: bool

    @property
    def is_list(self) -> bool:
        return self.spec.kind == "multi_valued"


@dataclass(frozen=True)
class Meeting:
    """Rows in which two fields have a value in common.

    Attributes:
        taker, owner: the fields.
        error: z of the score test.
        rates: positive share of these rows, and of the others.
        auc: of the meeting.
    """

    taker: Values
    owner: Values
    error: float
    rates: tuple[float, float]
    auc: float

    @property
    def why(self) -> str:
        return (
            f"where {self.taker.spec.name} and {self.owner.spec.name} have a value in common "
            f"{self.rates[0]:.0%} are positive, elsewhere {self.rates[1]:.0%}"
        )


def shared_values(draft: Draft, sample: Sample) -> Draft:
    """`vocabulary_of` where a meeting of two fields' values tells the label.

    Where it gives the label away, the field is left out; where it nearly does, it warns.
    """
    sample = sample.thinned(ROWS)
    labels, users = sample.labels, sample.users()
    values = values_of(draft.fields, sample.table, {})
    meetings = [
        _turned(meeting, labels)
        for a, b in _overlapping(values)
        if a.spec.source != b.spec.source
        if (meeting := meeting_of(a, b, labels, users)) is not None
    ]
    return _assigned(draft, sorted(meetings, key=lambda m: -abs(m.error)))


def _assigned(draft: Draft, meetings: Sequence[Meeting]) -> Draft:
    """Every field one owner, by the most certain meetings."""
    owner_of: dict[str, str] = {}
    why: dict[str, str] = {}
    left_out: dict[str, str] = {}
    warnings = []
    for meeting in meetings:
        sides = _sides(meeting, owner_of)
        if sides is None or sides[0] in left_out:
            continue
        taker, owner = sides
        if meeting.auc >= COPY_AUC:
            left_out[taker] = f"it gives the label away completely: {meeting.why}"
            continue
        if meeting.auc >= LEAK_AUC or min(meeting.rates) == 0 or max(meeting.rates) == 1:
            warnings.append(
                f"{taker} nearly tells the label ({meeting.why}); leave it out if it is only known "
                "afterwards"
            )
        owner_of[taker], why[taker] = owner, meeting.why
    lists = {spec.name for spec in draft.fields if spec.kind == "multi_valued"}
    fields = []
    for spec in draft.fields:
        if spec.name in owner_of:
            reasons = "; ".join(filter(None, (spec.why, why[spec.name])))
            owner = owner_of[spec.name]
            update = {"vocabulary_of": owner, "share": {spec.name, owner} <= lists, "why": reasons}
            fields.append(spec.model_copy(update=update))
        elif spec.name not in left_out:
            fields.append(spec)
    return draft.then(fields, left_out, warnings)


def _sides(meeting: Meeting, owner_of: Mapping[str, str]) -> tuple[str, str] | None:
    """(taker, owner): who may still take whose vocabulary; of two of one kind either."""
    names = meeting.taker.spec.name, meeting.owner.spec.name
    both = [names]
    if meeting.taker.is_list == meeting.owner.is_list:
        both.append(names[::-1])
    for taker, owner in both:
        above = owner
        while above in owner_of and above != taker:
            above = owner_of[above]
        if taker not in owner_of and above != taker:
            return taker, owner
    return None


def values_of(fields: Sequence[FieldSpec], sample: pa.Table, texts: dict[str, int]) -> list[Values]:
    """The values of the fields that may share some.

    Args:
        fields: as inferred.
        sample: (joined) rows.
        texts: the code of each text that was met before; those of others are added.
    """
    result = []
    for spec in fields:
        if takes_beginnings(spec.separator):
            continue  # one digit in common says nothing
        if spec.kind == "multi_valued":
            column, rows, lengths = _list_values(sample[spec.source], spec)
        elif spec.kind == "categorical" and spec.derive is None:
            column, rows, lengths = sample[spec.source], np.arange(len(sample)), None
        else:
            continue
        distinct, local = canonical_codes(column)
        if len(distinct) < _MIN_LISTED:
            continue
        shared = [texts.setdefault(text, len(texts)) for text in distinct.to_pylist()]
        codes = np.append(np.array(shared, np.int64), -1)[local]
        single = codes if lengths is None else lengths
        letters = pc.match_substring_regex(distinct, r"\pL").cast(pa.float64())
        are_names = bool(pc.mean(letters).as_py() > 0.5)
        result.append(Values(spec, codes[codes >= 0], rows[codes >= 0], single, are_names))
    return result


def _list_values(column: pa.ChunkedArray, spec: FieldSpec) -> tuple[pa.Array, Codes, Codes]:
    """(values that are kept, their rows, (N,) lengths) of as many rows as have few enough values.

    The other rows count as empty.
    """
    _, lengths = split_lists(column.slice(0, ROWS // 20), spec.separator)
    few = max(int(_LISTED / max(float(lengths.mean()) if len(lengths) else 1.0, 1.0)), 1)
    values, lengths = split_lists(column.slice(0, few), spec.separator, fold=spec.fold_words)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(rows)) - (np.cumsum(lengths) - lengths)[rows]
    if spec.keep == "last":
        place = lengths[rows] - 1 - place
    kept = place < (spec.max_len or MAX_LEN)
    whole = np.zeros(len(column), np.int64)
    whole[: len(lengths)] = lengths
    return values.filter(pa.array(kept)), rows[kept], whole


def _overlapping(values: Sequence[Values]) -> Iterator[tuple[Values, Values]]:
    """Pairs of fields with enough values in common, those with the most first."""
    distinct = [np.unique(v.codes) for v in values]
    size = 1 + max((int(d[-1]) for d in distinct if len(d)), default=0)
    holders = np.bincount(np.concatenate([np.zeros(0, np.int64), *distinct]), minlength=size)
    place = np.cumsum(holders > 1) - 1  # of the codes that several fields have
    held = np.zeros((len(values), int(place[-1]) + 1), bool)
    for i, codes in enumerate(distinct):
        held[i, place[codes[holders[codes] > 1]]] = True
    pairs = []
    for i, j in combinations(range(len(values)), 2):
        common = int((held[i] & held[j]).sum())
        share = common / max(min(len(distinct[i]), len(distinct[j])), 1)
        if common >= _fewest(values[i], values[j]) and share >= _MIN_OVERLAP:
            pairs.append((share, i, j))
    for _, i, j in sorted(pairs, key=lambda pair: -pair[0])[:_MAX_PAIRS]:
        yield values[i], values[j]


def _fewest(a: Values, b: Values) -> int:
    """Values in common from which on two fields may hold the same."""
    if a.is_list or b.is_list:
        return _MIN_LISTED
    return _MIN_NAMES if a.are_names and b.are_names else _MIN_DISTINCT


def meeting_of(a: Values, b: Values, labels: Labels, users: Codes) -> Meeting | None:
    """What rows in which two fields meet tell of the label, or None where that is nothing."""
    sides = (a, b) if a.is_list and not b.is_list else (b, a)
    taker, owner = (_without_usual(side, len(labels)) for side in sides)
    meets = _num_common(taker, owner, len(labels)) > 0
    num_meets = int(meets.sum())
    if not _MIN_MEETINGS <= num_meets <= len(labels) - _MIN_MEETINGS:
        return None
    rest = labels.astype(np.float64) - labels.mean()
    rest = beyond(rest, (owner.single, taker.single, users), rounds=2)
    surprise = meets - _expected(taker, owner, len(labels))
    surprise -= surprise.mean()
    scores = surprise * rest
    noise = np.sqrt(max((scores**2).sum(), (surprise**2).sum() * (rest**2).mean()))
    error = float(scores.sum() / max(noise, 1e-12))
    if abs(error) < _CERTAIN:
        return None
    rates = (float(labels[meets].mean()), float(labels[~meets].mean()))
    auc = 0.5 + abs(float(meets[labels > 0].mean() - meets[labels <= 0].mean())) / 2
    return Meeting(*sides, error, rates, auc)


def _without_usual(values: Values, num_rows: int) -> Values:
    """Words without those that most texts have (`for`), which would meet in every row."""
    if not values.spec.fold_words:
        return values
    size = 1 + int(values.codes.max(initial=0))
    once = np.unique(values.rows * size + values.codes) % size
    kept = np.bincount(once, minlength=size)[values.codes] <= _USUAL * num_rows
    return replace(values, codes=values.codes[kept], rows=values.rows[kept])


def _num_common(taker: Values, owner: Values, num_rows: int) -> Codes:
    """(N,) how many values the fields have in common."""
    if not owner.is_list:
        return np.bincount(taker.rows[taker.codes == owner.single[taker.rows]], minlength=num_rows)
    size = 1 + int(max(taker.codes.max(initial=0), owner.codes.max(initial=0)))
    in_taker, in_owner = (v.rows * size + v.codes for v in (taker, owner))
    return np.bincount(np.intersect1d(in_taker, in_owner) // size, minlength=num_rows)


def _turned(meeting: Meeting, labels: Labels) -> Meeting:
    """Of two lists that one the taker of which the share that they have in common tells more."""
    sides = meeting.taker, meeting.owner
    if not meeting.owner.is_list:
        return meeting
    number = _num_common(*sides, len(labels))
    shares = [number / np.maximum(side.single, 1) for side in sides]
    told = [abs(np.cov(share, labels)[0, 1]) / max(float(share.std()), 1e-12) for share in shares]
    return meeting if told[0] >= told[1] else replace(meeting, taker=sides[1], owner=sides[0])


def _expected(taker: Values, owner: Values, num_rows: int) -> Floats:
    """(N,) how likely the taker's values are to be met by those of any row of the owner."""
    size = 1 + int(max(taker.codes.max(initial=0), owner.codes.max(initial=0)))
    frequency = np.bincount(owner.codes, minlength=size) / num_rows
    once = np.unique(taker.rows * size + taker.codes)
    likely = np.bincount(once // size, frequency[once % size], minlength=num_rows)
    return np.minimum(likely, 1.0)
