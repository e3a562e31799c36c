"""Columns whose values pass by as time goes on, so that later rows never have them again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.data.inference.addresses import telling_beginnings
from dynens.data.inference.evidence import Labels
from dynens.data.inference.profile import ColumnProfile
from dynens.data.inference.roles import is_of_our_days, time_formats
from dynens.data.reading.numbers import to_numbers
from dynens.data.reading.times import to_seconds
from dynens.data.reading.values import canonical_codes
from dynens.data.reading.worded import WORDS
from dynens.metrics import mean_ranks

_ENOUGH_VALUES, _TOGETHER = 50, 0.01  # values with two rows and more; share of the rows
_IN_STEP = 0.999  # correlation of ranks
_AS_FINE = 0.5  # values for each time
_FIRST = 200  # rows that tell whether values are times at all
_KNOWN = 0.99
_ROUNDED = 1.2  # months and days of summer time are longer than others

Floats = npt.NDArray[np.float64]


def why_passing(
    profile: ColumnProfile,
    column: pa.ChunkedArray,
    seconds: Floats,
    labels: Labels,
    *,
    is_id: bool,
    is_code: bool,
) -> str | None:
    """Why values say nothing of later rows; None: they may.

    Args:
        profile: of the column.
        column: (N,) flat values.
        seconds: (N,) times of the rows.
        labels: (N,) of these rows.
        is_id: whether the column is an id by its name.
        is_code: whether values are texts of one word that are hardly anything but ids.
    """
    if _is_rounded_time(profile, column, seconds):
        return "it is the time of the row once more, or its day or the like"
    if profile.is_temporal:
        return None
    counts = profile.is_number or profile.has_sizes
    if (is_code or counts) and _tells_the_time(profile, column, seconds):
        return "it goes on with the time of the row, so that no later row has such values"
    if (is_id or is_code) and passing_values(column, seconds):
        later = seconds > np.nanmedian(seconds)
        parts = profile.texts.parts
        if parts is None or not telling_beginnings(*canonical_codes(column), labels, later):
            return "its values do not come back as time goes on"
    return None


def _tells_the_time(profile: ColumnProfile, column: pa.ChunkedArray, seconds: Floats) -> bool:
    """Whether values are the time of the row in other words: as many, and in the same order.

    Numbers of events are, as they are counted up or made of the time. Other times are not: how far
    they are from the row's may tell something.
    """
    if profile.num_distinct < _ENOUGH_VALUES:
        return False
    values = _places(column)
    if profile.is_number or profile.has_sizes:
        values = to_numbers(column, unit=WORDS if profile.has_sizes else None).values
    is_known = np.isfinite(values) & np.isfinite(seconds)
    values, times = values[is_known], seconds[is_known]
    if len(values) < len(seconds) / 2 or len(np.unique(values)) < _AS_FINE * len(np.unique(times)):
        return False
    if abs(np.corrcoef(mean_ranks(values), mean_ranks(times))[0, 1]) < _IN_STEP:
        return False
    read = to_seconds(column)[is_known] if profile.is_number else np.zeros(1)
    apart = float(np.nanmedian(np.abs(read - times))) if is_of_our_days(read) else np.inf
    return apart > float(np.ptp(times))


def _is_rounded_time(profile: ColumnProfile, column: pa.ChunkedArray, seconds: Floats) -> bool:
    """Whether values are the times of the rows, or these rounded to days, say.

    They are where they are no farther from the rows' times than from one another.
    """
    for time_format in time_formats(column, profile):
        if not is_of_our_days(to_seconds(column.slice(0, _FIRST), time_format)):
            continue
        times = to_seconds(column, time_format)
        apart = times - seconds
        known = np.isfinite(apart)
        steps = np.diff(np.unique(times[known]))
        if len(steps) and known.mean() >= _KNOWN:
            return bool(np.ptp(apart[known]) <= _ROUNDED * steps.min())
    return False


def _places(column: pa.ChunkedArray) -> Floats:
    """(N,) of texts, where they stand in the order of the alphabet; NaN: missing."""
    texts, codes = canonical_codes(column)
    places = np.argsort(np.argsort(np.array(texts.to_pylist(), object))).astype(np.float64)
    result: Floats = np.append(places, np.nan)[codes]
    return result


def passing_values(column: pa.ChunkedArray, seconds: npt.NDArray[np.float64]) -> bool:
    """Whether values pass by and do not come back: all rows of one stand together in time.

    Args:
        column: (N,) flat values.
        seconds: (N,) times of the rows.
    """
    codes = canonical_codes(column)[1].astype(np.int64)
    ordered = codes[np.argsort(seconds, kind="stable")]
    places = np.flatnonzero(ordered >= 0)
    ordered = ordered[places]
    if not len(ordered):
        return False
    size = int(ordered.max()) + 1
    first, last = np.full(size, len(codes)), np.full(size, -1)
    np.minimum.at(first, ordered, places)
    np.maximum.at(last, ordered, places)
    spans = (last - first)[last > first]
    return len(spans) >= _ENOUGH_VALUES and bool(np.quantile(spans, 0.99) < _TOGETHER * len(codes))
