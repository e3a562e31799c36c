"""Times as features: parts of the row's own, parts of other dates that tell, and their ages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.data.inference.evidence import LEAK_AUC, Labels, auc_noise, halves, held_out_auc, ranges
from dynens.data.inference.roles import is_of_our_days
from dynens.data.names import DATE, plain_name
from dynens.data.reading.numbers import to_numbers
from dynens.data.reading.times import NUMBER_FORMATS, has_offsets, time_part, to_seconds
from dynens.errors import DataError
from dynens.schema import FieldSpec, TimeFormat, TimePart

_DAY_S = 86_400
_YEAR_S = 365 * _DAY_S
_ROW_PARTS: dict[TimePart, int] = {"hour": _DAY_S, "weekday": 7 * _DAY_S}
"""With the seconds after which they come back."""
_NEARLY = 0.9
_AHEAD_S, _FEW_AHEAD = 3 * _YEAR_S, 0.01
_AGES, _MAX_AGES = 20, 8
_MIN_KNOWN = 0.5
_THE_SAME = 0.99  # correlation
_DATE_PARTS: tuple[TimePart, ...] = ("hour", "weekday", "month")


def row_time_fields(
    name: str, time_format: TimeFormat, column: pa.ChunkedArray
) -> Iterator[FieldSpec]:
    """Parts of the row's time that come back; the time itself never does.

    A log of five days tells of no weekday what the next one brings, and the weekday of a month's
    first tells of the month only. Counts of a unit that is not
    known tell an order, but no hours. Times with an offset from UTC are those of where the row
    happened.
    """
    if time_format == "count":
        return
    local = has_offsets(column)
    seconds = to_seconds(column, time_format, local=local)
    known = seconds[np.isfinite(seconds)]
    for part, period_s in _ROW_PARTS.items():
        codes = time_part(known, part)
        if part == "weekday" and _are_months(known):
            continue
        if len(np.unique(codes)) > 1 and np.ptp(known) > _NEARLY * period_s:
            yield _field(name, part, time_format, f"{part} of the time of the row", local)


def date_fields(spec: FieldSpec, column: pa.ChunkedArray, labels: Labels) -> Iterator[FieldSpec]:
    """Parts of another date that come back, where they tell the label.

    Args:
        spec: the field that holds the date.
        column: (N,) of the sample.
        labels: (N,) of the same rows.
    """
    local = has_offsets(column)
    seconds = to_seconds(column, spec.time_format, local=local)
    noise = auc_noise(int((labels > 0).sum()))
    half = halves(len(seconds))
    for part in _DATE_PARTS:
        if (part == "month" and _within_a_year(seconds)) or (
            part == "weekday" and _are_months(seconds)
        ):
            continue
        codes = np.nan_to_num(time_part(seconds, part) + 1).astype(np.int64)
        strength = held_out_auc(codes, labels, half)
        if strength > 0.5 + 2 * noise:
            why = f"{part} of a date, held-out AUC {strength:.3f}"
            field = _field(spec.source, part, spec.time_format, why, local)
            yield field.model_copy(update={"entity": spec.entity})


def row_times(sample: pa.Table, name: str, time_format: TimeFormat) -> npt.NDArray[np.float64]:
    """(N,) seconds of the sample's rows.

    Raises:
        DataError: the column holds no time.
    """
    seconds = to_seconds(sample[name], time_format)
    if not np.isfinite(seconds).any():
        held = next((str(v) for v in sample[name].drop_null()[:1].to_pylist()), "no value")
        raise DataError(
            f"the timestamp column {name!r} holds no time that can be read ({held!r} is one of "
            "its values); name another one, or none."
        )
    return seconds


def maybe_row_times(fields: Iterable[FieldSpec]) -> list[str]:
    """What to ask of fields of dates where no column is the time of the row."""
    names = [f.source for f in fields if f.derive == "epoch_days"]
    return [
        f"{name} is a feature; if it is the time of the row, name it (in features.timestamp, or by "
        f"--time {name} beside --train), so that rows are cut by it"
        for name in [n for n in names if DATE.fullmatch(plain_name(n))][:1]
    ]


def age_fields(
    fields: Sequence[FieldSpec], row_time: FieldSpec, sample: pa.Table, labels: Labels
) -> tuple[list[FieldSpec], list[str]]:
    """How long before the row its dates are, where that tells the label; warnings.

    Dates of a table go on after training, so that it is their age that comes back. Neither the
    date behind an age nor the row's time is a feature that way (`only_apart`).

    Args:
        fields: as inferred.
        row_time: days since 1970 of the row.
        sample: (joined) rows.
        labels: (N,) of these rows.
    """
    found: list[tuple[float, FieldSpec]] = []
    warnings: list[str] = []
    for spec, age in _ages(fields, row_time, sample, labels):
        if age.tells:
            why = f"age at the time of the row, held-out AUC {age.auc:.3f}"
            field = _scaled(_field(spec.source, "epoch_days", age.time_format, why))
            update = {"name": f"{spec.source}.age", "entity": spec.entity}
            update["apart_from"] = row_time.name
            found.append((age.auc, field.model_copy(update=update)))
        if age.auc >= LEAK_AUC:
            warnings.append(
                f"how long {spec.source} is before {row_time.source} nearly tells the label "
                f"(held-out AUC {age.auc:.3f}); exclude it if it is only known afterwards"
            )
    strongest = sorted(found, key=lambda pair: -pair[0])[:_MAX_AGES]
    return [field for _, field in strongest], warnings


def with_times(
    fields: Sequence[FieldSpec], row_time: FieldSpec, sample: pa.Table, labels: Labels
) -> list[FieldSpec]:
    """The fields, numbers that are times by themselves, as their ages tell, read as such.

    Seconds, milliseconds and dates in texts are then one value, in every field of the column.
    """
    times = {spec.name: age for spec, age in _ages(fields, row_time, sample, labels) if age.tells}
    return [
        spec.model_copy(
            update={
                "derive": "epoch_days",
                "time_format": times[spec.name].time_format,
                "why": f"{spec.why}; they are times",
            }
        )
        if spec.name in times and spec.derive is None
        else spec
        for spec in fields
    ]


@dataclass(frozen=True)
class _Age:
    """How a field's column is a date, and what its ages tell: the held-out AUC, beyond chance."""

    time_format: TimeFormat
    auc: float
    tells: bool


def _ages(
    fields: Iterable[FieldSpec], row_time: FieldSpec, sample: pa.Table, labels: Labels
) -> Iterator[tuple[FieldSpec, _Age]]:
    """The fields that are dates, and the ages of these."""
    if row_time.time_format == "count":
        return  # of a unit that is not known: no date can be taken from it
    now = to_seconds(sample[row_time.source], row_time.time_format)
    noise = auc_noise(int((labels > 0).sum()))
    half = halves(len(labels))
    for spec in fields:
        time_format = _format_of_time(spec, sample)
        if time_format is None:
            continue
        age = now - to_seconds(sample[spec.source], time_format)
        if _go_together(age, now):
            continue  # the row's time in another guise, which never comes back
        if spec.derive is None and _lie_far_ahead(age):
            continue  # prices and populations in billions
        strength = held_out_auc(ranges(age, _AGES), labels, half)
        yield spec, _Age(time_format, strength, strength > 0.5 + 2 * noise)


def _go_together(age: npt.NDArray[np.float64], now: npt.NDArray[np.float64]) -> bool:
    """Whether ages are the time of the row, less dates that are about the same."""
    known = np.isfinite(age) & np.isfinite(now)
    age, now = age[known], now[known]
    if not len(age) or now.std() == 0 or age.std() == 0:
        return False
    return bool(np.corrcoef(age, now)[0, 1] > _THE_SAME)


def _lie_far_ahead(age: npt.NDArray[np.float64]) -> bool:
    """Whether many dates are years later than their rows."""
    return bool((age < -_AHEAD_S).sum() > _FEW_AHEAD * np.isfinite(age).sum())


def row_time_field(name: str, column: str, time_format: TimeFormat) -> FieldSpec:
    """The time of the row as what dates are apart from."""
    field = _field(column, "epoch_days", time_format, "the time that ages are counted to")
    return _scaled(field).model_copy(update={"name": name})


def _scaled(spec: FieldSpec) -> FieldSpec:
    return spec.model_copy(update={"kind": "numeric", "transform": "standard", "only_apart": True})


def _format_of_time(spec: FieldSpec, sample: pa.Table) -> TimeFormat | None:
    """How a field's column is a date: one by itself, or numbers that are all of our days or 0."""
    if spec.kind != "numeric":
        return None
    if spec.derive is not None:
        return spec.time_format if spec.derive == "epoch_days" else None
    numbers = to_numbers(sample[spec.source]).values
    known = numbers[np.isfinite(numbers) & (numbers != 0)]
    for time_format in NUMBER_FORMATS if len(known) > _MIN_KNOWN * len(numbers) else ():
        if is_of_our_days(to_seconds(pa.array(known), time_format)):
            return time_format
    return None


def _field(
    column: str, part: TimePart, time_format: TimeFormat, why: str, local: bool = False
) -> FieldSpec:
    return FieldSpec(
        name=f"{column}.{part}",
        column=column,
        derive=part,
        time_format=time_format,
        local=local,
        why=why,
    )


def _within_a_year(seconds: npt.NDArray[np.float64]) -> bool:
    """Whether no month comes back."""
    known = seconds[np.isfinite(seconds)]
    return not len(known) or bool(known.max() - known.min() < _YEAR_S)


def _are_months(seconds: npt.NDArray[np.float64]) -> bool:
    """Whether all are of one day of their months, or of the last, so that months alone are told."""
    known = seconds[np.isfinite(seconds)]
    return any(len(np.unique(time_part(known + ahead, "day"))) == 1 for ahead in (0, _DAY_S))
