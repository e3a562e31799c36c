"""Parts of times as features: those of the row's own time, and those of other dates that tell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.data.evidence import Labels, auc_noise, halves, held_out_auc
from dynens.data.times import time_part, to_seconds
from dynens.schema import FieldSpec, TimeFormat, TimePart

_YEAR_S = 365 * 86_400
_ROW_PARTS: tuple[TimePart, ...] = ("hour", "weekday")
_DATE_PARTS: tuple[TimePart, ...] = ("hour", "weekday", "month")


def row_time_fields(
    name: str, time_format: TimeFormat, column: pa.ChunkedArray
) -> Iterator[FieldSpec]:
    """Parts of the row's time that come back; the time itself never does.

    Counts of a unit that is not known tell an order, but no hours.
    """
    if time_format == "count":
        return
    seconds = to_seconds(column, time_format)
    for part in _ROW_PARTS:
        codes = time_part(seconds, part)
        if len(np.unique(codes[np.isfinite(codes)])) > 1:
            yield _field(name, part, time_format, f"{part} of the time of the row")


def date_fields(spec: FieldSpec, column: pa.ChunkedArray, labels: Labels) -> Iterator[FieldSpec]:
    """Parts of another date that come back, where they tell the label.

    Args:
        spec: the field that holds the date.
        column: (N,) of the sample.
        labels: (N,) of the same rows.
    """
    seconds = to_seconds(column, spec.time_format)
    noise = auc_noise(int((labels > 0).sum()))
    half = halves(len(seconds))
    for part in _DATE_PARTS:
        codes = np.nan_to_num(time_part(seconds, part) + 1).astype(np.int64)
        strength = held_out_auc(codes, labels, half)
        if strength > 0.5 + 2 * noise and not (part == "month" and _within_a_year(seconds)):
            why = f"{part} of a date, held-out AUC {strength:.3f}"
            field = _field(spec.source, part, spec.time_format, why)
            yield field.model_copy(update={"entity": spec.entity})


def _field(column: str, part: TimePart, time_format: TimeFormat, why: str) -> FieldSpec:
    return FieldSpec(
        name=f"{column}.{part}", column=column, derive=part, time_format=time_format, why=why
    )


def _within_a_year(seconds: npt.NDArray[np.float64]) -> bool:
    """Whether no month comes back."""
    known = seconds[np.isfinite(seconds)]
    return not len(known) or bool(known.max() - known.min() < _YEAR_S)
