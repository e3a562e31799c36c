"""What the values of a list are by another field: the categories of a history's items.

Whose keys a list's values are is seen by the values in common; what depends on the key alone is
looked up for them. It becomes a field where its meeting with the row's own tells the label, by the
test of `shared`. The row's own key among the list's values does not count there: that a candidate
is in a history says by itself that their categories meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.data.inference.drafts import Draft, Sample
from dynens.data.inference.shared import ROWS, Meeting, Values, meeting_of, values_of
from dynens.data.names import unused_name
from dynens.schema import FieldSpec

_MIN_KEYS = 20
_MIN_KNOWN = 0.2  # of a list's values must be keys
_MIN_DETERMINED = 0.98  # of the rows must have the category that their key has most often
_MIN_ROWS_PER_KEY = 1.5  # else any column seems to depend on the key
_MIN_KEYS_PER_CATEGORY = 2.0
_MAX_FOUND = 3  # fields by one list
_SPELLED_ROWS = 20_000
_KEYS = "between spaces, values of another column"

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Key:
    """A field whose values may be those of a list, and rows that tell what depends on it.

    Attributes:
        spec: the field.
        own: (N,) codes of the rows with labels.
        codes: (M,) codes of the rows that tell.
        table: these rows.
        is_unique: whether each is another key's.
    """

    spec: FieldSpec
    own: Codes
    codes: Codes
    table: pa.Table
    is_unique: bool


def looked_up_fields(draft: Draft, sample: Sample) -> Draft:
    """Behind the fields those that are looked up by the values of lists."""
    if not any(spec.kind == "multi_valued" for spec in draft.fields):
        return draft
    result, texts = list(draft.fields), dict[str, int]()
    thinned = sample.thinned(ROWS)
    labels, users = thinned.labels, thinned.users()
    values = values_of(draft.fields, thinned.table, texts)
    keys = [_key(v, sample, texts) for v in values if not v.is_list]
    for listed in (v for v in values if v.is_list):
        found = []
        for key in keys:
            if not _holds(listed, key):
                continue
            for owner in values:
                taker = _looked_up(listed, key, owner, texts)
                meeting = taker and meeting_of(taker, owner, labels, users)
                if meeting:
                    found.append((meeting, key))
        found.sort(key=lambda one: -abs(one[0].error))
        first = {meeting.owner.spec.name: (meeting, key) for meeting, key in found[::-1]}
        for meeting, key in list(first.values())[::-1][:_MAX_FOUND]:
            names = [*sample.table.column_names, *(spec.name for spec in result)]
            result.append(_field(meeting, listed.spec, key.spec, names))
    return draft.then(result)


def lists_of_keys(draft: Draft, sample: Sample) -> Draft:
    """Words that are another field's values as they are spelled are a list of these."""
    rows = sample.table.slice(0, _SPELLED_ROWS)
    texts: dict[str, int] = {}
    single = values_of([f for f in draft.fields if f.kind == "categorical"], rows, texts)
    result = []
    for spec in draft.fields:
        if spec.fold_words and spec.separator is None:
            update = {"fold_words": False, "keep": "last", "max_len": None, "why": _KEYS}
            plain = spec.model_copy(update=update)
            both = values_of([spec, plain], rows, texts)
            for key in (np.unique(v.single) for v in single if v.spec.source != spec.source):
                shares = [_share(listed, key) for listed in both]
                if len(key) > _MIN_KEYS and len(both) > 1 and shares[1] >= max(0.5, shares[0]):
                    spec = plain
                    break
        result.append(spec)
    return draft.then(result)


def _share(listed: Values, keys: Codes) -> float:
    """Of the values of a list that are among the keys."""
    return float(np.isin(listed.codes, keys).mean()) if len(listed.codes) else 0.0


def _key(values: Values, sample: Sample, texts: dict[str, int]) -> _Key:
    table = sample.items.get(values.spec.source)
    rows = sample.table if table is None else table
    (told,) = values_of([values.spec], rows, texts) or [values]
    return _Key(values.spec, values.single, told.single, rows, table is not None)


def _holds(listed: Values, key: _Key) -> bool:
    """Whether the values of a list are keys."""
    distinct = np.unique(key.codes[key.codes >= 0])
    may_be = len(distinct) >= _MIN_KEYS and key.spec.decimal == "."
    return may_be and _share(listed, distinct) >= _MIN_KNOWN


def _looked_up(listed: Values, key: _Key, owner: Values, texts: dict[str, int]) -> Values | None:
    """The values of a list by another field; None where this does not depend on the key."""
    name = owner.spec.source
    if owner.is_list or name in (listed.spec.source, key.spec.source):
        return None
    if name not in key.table.column_names:
        return None
    told = values_of([owner.spec], key.table, texts)
    category_of = _category_of(key, told[0].single, len(texts)) if told else None
    if category_of is None:
        return None
    codes = category_of[listed.codes]
    kept = (codes >= 0) & (listed.codes != key.own[listed.rows])
    spec = FieldSpec(
        name=f"{listed.spec.source}.{owner.spec.name}",
        kind="multi_valued",
        entity=listed.spec.entity,
    )
    return replace(listed, spec=spec, codes=codes[kept], rows=listed.rows[kept])


def _category_of(key: _Key, categories: Codes, num_codes: int) -> Codes | None:
    """(num_codes,) the category of each key, -1 where there is none; None: it does not depend."""
    both = (key.codes >= 0) & (categories >= 0)
    # One number for both sorts faster than columns do.
    packed, counts = np.unique(key.codes[both] * num_codes + categories[both], return_counts=True)
    pairs = np.stack(np.divmod(packed, num_codes))
    order = np.argsort(counts, kind="stable")  # the most frequent one is written last
    result = np.full(num_codes, -1, np.int64)
    result[pairs[0, order]] = pairs[1, order]
    num_keys, num_categories = (len(np.unique(side)) for side in pairs)
    agreeing = (result[key.codes[both]] == categories[both]).mean() if both.any() else 0.0
    few_rows = not key.is_unique and both.sum() < _MIN_ROWS_PER_KEY * num_keys
    if num_keys < _MIN_KEYS_PER_CATEGORY * num_categories or few_rows:
        return None
    return result if agreeing >= _MIN_DETERMINED else None


def _field(meeting: Meeting, listed: FieldSpec, key: FieldSpec, names: Sequence[str]) -> FieldSpec:
    """The field whose values met."""
    taker, owner = meeting.taker.spec, meeting.owner.spec
    return taker.model_copy(
        update={
            "name": unused_name(taker.name, names),
            "through": (listed.name, key.name),
            "vocabulary_of": owner.name,
            "why": f"the {owner.name} of each {key.name} in {listed.name}; {meeting.why}",
        }
    )
