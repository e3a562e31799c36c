"""Which columns play a part: keys, the time of the row, row numbers, outcomes in disguise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.data.inference.profile import ColumnProfile
from dynens.data.names import DATE, DAYS, ITEMS, MOMENT, REQUEST, TIME, USERS, WEIGHT, plain_name
from dynens.data.reading.numbers import to_numbers
from dynens.data.reading.times import (
    NUMBER_FORMATS,
    are_excel_days,
    read_once,
    text_format,
    to_seconds,
)
from dynens.data.reading.values import canonical_texts, plain
from dynens.schema import FeatureSchema, TimeFormat

_EARLIEST_S, _LATEST_S = 6e8, 4.2e9  # 1989 to 2103
_DAY_S = 86_400
_NEAR_START = 0.01  # of the last time
_FIRST = 100  # rows that tell most columns apart


@dataclass(frozen=True)
class Roles:
    """The columns that play a part, by the names of `FeatureSchema`; None: there is none."""

    timestamp: str | None
    time_format: TimeFormat
    request_id: str | None
    user_key: str | None
    item_key: str | None

    @property
    def keys(self) -> tuple[str | None, str | None]:
        """Those of user and item."""
        return self.user_key, self.item_key


def find_roles(
    features: FeatureSchema, sample: pa.Table, profiles: Mapping[str, ColumnProfile]
) -> Roles:
    """Roles as a schema says them, and found in a sample where it does not."""
    timestamp, time_format = features.timestamp, features.time_format
    if timestamp is None:
        safe = {n: p for n, p in profiles.items() if not p.tells_by_absence}
        timestamp, time_format = find_timestamp(sample, safe) or (None, time_format)
    return Roles(
        timestamp,
        time_format,
        features.request_id or find_key(profiles, REQUEST),
        features.user_key or find_key(profiles, *USERS),
        features.item_key or find_key(profiles, *ITEMS),
    )


def find_timestamp(
    sample: pa.Table, profiles: Mapping[str, ColumnProfile]
) -> tuple[str, TimeFormat] | None:
    """The column that tells when a row happened, and how it is written.

    A column with the name of such a time comes first, and among several the one in whose order rows
    stand, as they mostly do. Without such a name order must show it: `created_at` may as well be
    the age of what was shown. With both, numbers may count from the log's start, wherever that is;
    the numbers of days or weeks (`day`, 1 to 14) must never go back, as days of a month do.
    """
    found: dict[str, tuple[tuple[bool, bool, bool], TimeFormat]] = {}
    for name, profile in profiles.items():
        named, dated, counted = (p.fullmatch(plain_name(name)) for p in (TIME, DATE, DAYS))
        if not name or profile.num_distinct < 3 or profile.missing_share > 0.01 or profile.is_list:
            continue
        if not (named or dated or counted) and profile.num_distinct < 10:
            continue
        column = read_once(sample[name])
        # A count of rows goes up too, but always by the same.
        if not (named or dated or counted) and profile.is_number and _even_steps(column):
            continue
        for time_format in time_formats(sample[name], profile):
            seconds = to_seconds(column, time_format)
            ordered = _in_order(seconds)
            if not is_of_our_days(seconds) and not (
                named and ordered and _from_a_start(seconds, time_format)
            ):
                continue
            if ordered or named:
                found[name] = (bool(named), ordered, bool(dated)), time_format
            break
        else:
            if counted and _counts_on(sample[name], profile):
                found[name] = (False, True, False), "count"
    best = max(found, key=lambda name: found[name][0], default=None)
    return None if best is None else (best, found[best][1])


def time_formats(column: pa.ChunkedArray, profile: ColumnProfile) -> tuple[TimeFormat, ...]:
    """How the column's values may be written, as times."""
    if profile.is_number:
        if MOMENT.fullmatch(plain_name(profile.name)) and are_excel_days(column):
            return ("excel",)
        return NUMBER_FORMATS if profile.numbers.unit is None else ()
    found = text_format(column.slice(0, 2000))
    return () if found is None else (found,)


def may_be_time(sample: pa.Table, profile: ColumnProfile) -> bool:
    """Whether numbers, read as times, are all of our days."""
    return profile.is_number and any(
        is_of_our_days(to_seconds(sample[profile.name], kind)) for kind in NUMBER_FORMATS
    )


def is_of_our_days(seconds: npt.NDArray[np.float64]) -> bool:
    """Whether nearly all of them are times of the last decades or the next."""
    return bool(((seconds > _EARLIEST_S) & (seconds < _LATEST_S)).mean() > 0.99)


def _from_a_start(seconds: npt.NDArray[np.float64], time_format: TimeFormat) -> bool:
    """Whether times may be counted from the first of them, and go on for days.

    As seconds they are small, as counts of any other unit they begin near 0.
    """
    first, last = float(np.nanmin(seconds)), float(np.nanmax(seconds))
    if time_format == "count":
        return last - first > _DAY_S and 0 <= first < _NEAR_START * last
    is_small = max(-first, last) < _EARLIEST_S
    return time_format == "auto" and last - first > _DAY_S and is_small


def _counts_on(column: pa.ChunkedArray, profile: ColumnProfile) -> bool:
    """Whether whole numbers go on from row to row and never back."""
    if not profile.numbers.is_integer or profile.numbers.unit is not None:
        return False
    numbers = to_numbers(column).values
    steps = np.diff(numbers[np.isfinite(numbers)])
    return _in_order(numbers) and not (steps.min() < 0 < steps.max())


def _even_steps(column: pa.Array) -> bool:
    """Whether numbers go on by one and the same step."""
    numbers = to_numbers(column).values
    steps = np.diff(numbers[np.isfinite(numbers)])
    return len(steps) == 0 or bool((np.abs(steps) == np.abs(steps[0])).mean() > 0.9)


def find_key(profiles: Mapping[str, ColumnProfile], *names: re.Pattern[str]) -> str | None:
    """The column with most values among those that repeat and whose name fits, first the first."""
    usable = [
        p
        for p in profiles.values()
        if not p.is_list and p.num_distinct > 10 and p.unique_share < 0.9
    ]
    for pattern in names:
        if found := [p for p in usable if pattern.fullmatch(plain_name(p.name))]:
            return max(found, key=lambda p: p.num_distinct).name
    return None


def find_weight(sample: pa.Table, warnings: list[str]) -> str | None:
    """The column whose name says that it weighs rows, and whose values can; others are warned of.

    Args:
        sample: rows.
        warnings: gets a sentence for a column of such a name that cannot.
    """
    names: list[str] = sample.column_names
    for name in names:
        if WEIGHT.fullmatch(plain_name(name)) and not pa.types.is_nested(sample[name].type):
            weights = to_numbers(sample[name]).values
            if (np.isfinite(weights) & (weights > 0)).all():
                return name
            warnings.append(
                f"{name!r} is named like a weight of rows but has values that are missing or not "
                "above 0; it is a feature. Mend them, or leave the column out (excluded)."
            )
    return None


def find_copies(sample: pa.Table, profiles: Mapping[str, ColumnProfile]) -> dict[str, str]:
    """Columns whose values are those of an earlier one in every row, with its name."""
    copies: dict[str, str] = {}
    alike: dict[tuple[int, int, float], list[str]] = {}
    for name, profile in profiles.items():
        key = profile.num_known, profile.num_distinct, profile.label.auc_by_value
        first = alike.setdefault(key, [])
        original = next((other for other in first if _same(sample[other], sample[name])), None)
        if original is None:
            first.append(name)
        else:
            copies[name] = original
    return copies


def _same(column: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    """Whether two columns say the same, however it is written: 5, 5.0 and "5" are one value."""
    if column.type == other.type and column.equals(other):
        return True
    if pa.types.is_nested(column.type) or pa.types.is_nested(other.type):
        return False
    pair = plain(column), plain(other)
    first, second = (canonical_texts(values.slice(0, _FIRST)) for values in pair)
    if not first.equals(second):
        return False
    return bool(canonical_texts(pair[0]).equals(canonical_texts(pair[1])))


def _in_order(seconds: npt.NDArray[np.float64]) -> bool:
    """Whether times nearly always go one way from row to row."""
    steps = np.sign(np.diff(seconds))
    moves = np.count_nonzero(steps)
    return bool(moves >= 10 and abs(steps.sum()) > 0.9 * moves)
