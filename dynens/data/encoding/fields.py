"""One encoder per field: fitted on training rows, then raw column → dense columns and ids."""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.batch import MISSING, FloatArray, IntArray, SparseField, component_names
from dynens.data.encoding.vocabulary import Vocabulary
from dynens.data.reading.lists import split_lists
from dynens.data.reading.numbers import number, to_numbers
from dynens.data.reading.spelled import column_with_points, with_point
from dynens.data.reading.times import seconds_of_values, time_part, to_seconds
from dynens.data.reading.values import canonical, one_line
from dynens.data.reading.worded import NUMBERS
from dynens.errors import DataError
from dynens.schema import Decimal, FieldSpec

MISSING_SUFFIX = "#missing"
BUCKET_SUFFIX = "#bucket"
# What values raise that are lists, mappings, texts of half a character or integers beyond floats.
UNREADABLE = (TypeError, UnicodeEncodeError, OverflowError, pa.ArrowException)
_READ_AT_ONCE = 64  # texts as times: one that is none takes milliseconds, until it is refused
_LARGEST = float(np.finfo(np.float32).max)
NO_SENTINELS: Mapping[float, float] = MappingProxyType({})
_FAR = 1e9  # deviations, which gaps of single precision can be taken between


class FieldEncoder(ABC):
    """Encodes one field.

    `dense` and `sparse` name what it writes; `encode*` fill (B, len(dense)) float32 and
    (B, sum of widths) int32 arrays that the caller owns.
    """

    def __init__(self, spec: FieldSpec) -> None:
        self.spec = spec
        self.dense: tuple[str, ...] = ()
        self.sparse: tuple[SparseField, ...] = ()

    @abstractmethod
    def encode(self, column: pa.Array | pa.ChunkedArray, dense: FloatArray, ids: IntArray) -> None:
        """Encode an Arrow column."""

    @abstractmethod
    def encode_values(self, values: Sequence[Any], dense: FloatArray, ids: IntArray) -> None:
        """Encode a few Python values; the same result as `encode`, sooner.

        Raises:
            DataError: a value is not of the field's kind: no number, no single value, no vector.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What was fitted, as JSON values (vocabularies are stored apart)."""

    def missing_row(self) -> tuple[FloatArray, IntArray]:
        """What a row without this field holds: (dense, ids)."""
        dense = np.zeros((1, len(self.dense)), np.float32)
        ids = np.zeros((1, sum(f.width for f in self.sparse)), np.int32)
        self.encode_values([None], dense, ids)
        return dense[0], ids[0]


class CategoricalEncoder(FieldEncoder):
    """Categories (or a part of a date) to ids."""

    def __init__(self, spec: FieldSpec, vocabulary: Vocabulary) -> None:
        super().__init__(spec)
        self.vocabulary = vocabulary
        self.sparse = (
            SparseField(spec.name, vocabulary.num_embeddings, vocabulary_of=spec.vocabulary_of),
        )

    def encode(self, column: pa.Array | pa.ChunkedArray, dense: FloatArray, ids: IntArray) -> None:
        ids[:, 0] = self.vocabulary.encode(derived(column, self.spec))

    def encode_values(self, values: Sequence[Any], dense: FloatArray, ids: IntArray) -> None:
        if self.spec.derive:
            values = derived_values(values, self.spec)
        elif self.spec.decimal == ",":
            values = [with_point(v) if isinstance(v, str) else v for v in values]
        try:
            ids[:, 0] = self.vocabulary.encode_values(values)
        except UNREADABLE as e:
            read = self.vocabulary.encode_values
            raise unfit(self.spec, "takes one value per row", values, read) from e

    def state(self) -> dict[str, Any]:
        return {}


class NumericEncoder(FieldEncoder):
    """A number to a dense value, an optional missing indicator and optional buckets.

    Args:
        spec: the field.
        knots: increasing raw values; the transform interpolates linearly between them.
        heights: transformed values at the knots. One knot stands for an affine transform
            `(x - knot) * heights[0]`.
        has_missing: whether training rows missed values (then an indicator column exists).
        edges: upper edges of the buckets but the last; empty: no sparse twin.
        gaps: where and how closely to look at what the transformed values are above those of the
            field that `apart_from` names: (middle, scale) of `dynens.layers.gaps`, each.
        holds_texts: whether training rows had more texts among the numbers than typing errors.
        absent: numbers that stand for a missing one, and their shares of the training rows' values.
    """

    def __init__(
        self,
        spec: FieldSpec,
        knots: npt.NDArray[np.float64],
        heights: npt.NDArray[np.float64],
        has_missing: bool,
        edges: npt.NDArray[np.float64],
        gaps: Sequence[tuple[float, float]] = (),
        holds_texts: bool = False,
        absent: Mapping[float, float] = NO_SENTINELS,
    ) -> None:
        super().__init__(spec)
        self.absent = dict(absent)
        self.knots, self.heights, self.edges = knots, heights, edges
        self.gaps = tuple(gaps)
        self.has_missing, self.holds_texts = has_missing, holds_texts
        self.texts_are_missing = False
        """Set where the same column is a category too, whose values may be texts that are no
        numbers: they are missing here, and no mistake."""
        self.dense = (spec.name, spec.name + MISSING_SUFFIX) if has_missing else (spec.name,)
        if len(edges):
            self.sparse = (SparseField(spec.name + BUCKET_SUFFIX, 2 + len(edges) + 1),)

    def encode(self, column: pa.Array | pa.ChunkedArray, dense: FloatArray, ids: IntArray) -> None:
        self._write(numbers_of(column, self.spec, self.spec.decimal), dense, ids)

    def encode_values(self, values: Sequence[Any], dense: FloatArray, ids: IntArray) -> None:
        if self.spec.derive:
            values = derived_values(values, self.spec)
        self._write(self._numbers(values), dense, ids)

    def _numbers(self, values: Sequence[Any]) -> npt.NDArray[np.float64]:
        if set(map(type, values)) <= {int, float, bool}:
            with contextlib.suppress(OverflowError):  # an integer that no float holds
                numbers = np.array(values, np.float64)
                numbers[~np.isfinite(numbers)] = np.nan
                return numbers
        read = _number_or_nan if self.texts_are_missing else _number
        return np.array([read(value, self.spec) for value in values], np.float64)

    def _write(self, numbers: npt.NDArray[np.float64], dense: FloatArray, ids: IntArray) -> None:
        if not (self.spec.only_apart and self.spec.derive):
            numbers = single_precision(numbers)  # which has minutes only, of days since 1970
        if self.absent:
            numbers = np.where(np.isin(numbers, list(self.absent)), np.nan, numbers)
        missing = np.isnan(numbers)
        values = self.transform(numbers)
        any_missing = bool(missing.any())
        if any_missing:
            values[missing] = 0.0
        dense[:, 0] = values
        if self.has_missing:
            dense[:, 1] = missing
        if len(self.edges):
            buckets = np.searchsorted(self.edges, numbers, side="left") + 2
            ids[:, 0] = np.where(missing, MISSING, buckets) if any_missing else buckets

    def transform(self, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The dense value of each number, before missing ones become 0."""
        if self.spec.transform == "log":
            numbers = np.sign(numbers) * np.log1p(np.abs(numbers))
        if len(self.knots) == 1:
            # Clipped: one absurd value must not swamp every other feature of its row.
            affine = (numbers - self.knots[0]) * self.heights[0]
            end = _FAR if self.spec.only_apart else 10.0
            return np.asarray(np.clip(affine, -end, end))
        return np.interp(numbers, self.knots, self.heights)

    def state(self) -> dict[str, Any]:
        state = {
            "knots": self.knots.tolist(),
            "heights": self.heights.tolist(),
            "has_missing": self.has_missing,
            "edges": self.edges.tolist(),
        }
        gaps = {"gaps": [list(gap) for gap in self.gaps]} if self.gaps else {}
        absent = {"absent": list(self.absent.items())} if self.absent else {}
        return state | gaps | absent | ({"holds_texts": True} if self.holds_texts else {})


def _number(value: Any, spec: FieldSpec) -> float:
    return number(value, spec.source, spec.decimal, spec.unit)


def _number_or_nan(value: Any, spec: FieldSpec) -> float:
    try:
        return _number(value, spec)
    except DataError:
        if not isinstance(value, (str, bytes)):
            raise
        return math.nan


def single_precision(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Numbers as float32 holds them: clients may send either, and a bucket's edge is sharp."""
    return np.clip(numbers, -_LARGEST, _LARGEST).astype(np.float32).astype(np.float64)


class DenseVectorEncoder(FieldEncoder):
    """A vector of numbers.

    Args:
        spec: the field.
        mean, scale: a component c becomes `(c - mean) * scale`.
        dot: the middle of its products with the vector that `dot_with` names and 1 / how far they
            spread, as `dynens.layers.dots` means them.
    """

    def __init__(
        self,
        spec: FieldSpec,
        mean: npt.NDArray[np.float64],
        scale: npt.NDArray[np.float64],
        dot: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(spec)
        self.mean, self.scale, self.dot = mean, scale, dot
        self.texts_are_missing = False
        """As of a `NumericEncoder`: whether texts that are no such vectors are no mistake."""
        self.dense = component_names(spec.name, len(mean))

    def encode(self, column: pa.Array | pa.ChunkedArray, dense: FloatArray, ids: IntArray) -> None:
        values, lengths = split_lists(column, self.spec.separator)
        self._write(to_numbers(values).values, lengths, dense)

    def encode_values(self, values: Sequence[Any], dense: FloatArray, ids: IntArray) -> None:
        try:
            numbers, lengths = self._numbers(values)
        except UNREADABLE as e:
            rule = f"takes lists of {len(self.mean)} numbers"
            raise unfit(self.spec, rule, values, self._numbers) from e
        self._write(numbers, lengths, dense)

    def _numbers(
        self, values: Sequence[Any]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        if self.texts_are_missing:
            values = [self._as_text(value) for value in values]
        kept = [v if isinstance(v, str) or v is None else list(v) for v in values]
        texts = any(isinstance(v, str) for v in kept)
        column = pa.array(kept, pa.string() if texts else pa.list_(pa.float64()))
        flat, lengths = split_lists(column, self.spec.separator)
        numbers = to_numbers(flat)
        if self.texts_are_missing:
            return numbers.values, lengths
        if numbers.num_unreadable:
            raise TypeError(numbers.example)
        if misfits(numbers.values, lengths, len(self.mean)).any():
            raise TypeError("another length")
        return numbers.values, lengths

    def _as_text(self, value: Any) -> str | None:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, (list, tuple)):
            between = " " if self.spec.separator in (None, NUMBERS) else self.spec.separator
            return between.join(_spelled_out(v) or "" for v in value)
        return canonical(value)

    def _write(
        self, flat: npt.NDArray[np.float64], lengths: npt.NDArray[np.int64], dense: FloatArray
    ) -> None:
        matrix = vectors(flat, lengths, len(self.mean))
        matrix[misfits(flat, lengths, len(self.mean))] = np.nan
        dense[:] = self.transform(matrix)

    def transform(self, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(B, L) components on the field's scale, 0 where they are missing."""
        return np.nan_to_num(np.clip((matrix - self.mean) * self.scale, -10.0, 10.0))

    def state(self) -> dict[str, Any]:
        state = {"mean": self.mean.tolist(), "scale": self.scale.tolist()}
        return state | ({"dot": list(self.dot)} if self.spec.dot_with else {})


def misfits(
    flat: npt.NDArray[np.float64], lengths: npt.NDArray[np.int64], size: int
) -> npt.NDArray[np.bool_]:
    """Which lists, laid end to end, are vectors of another length.

    An empty one, and an empty text, which is a list of one missing number, are missing values.
    """
    bad: npt.NDArray[np.bool_] = (lengths != size) & (lengths != 0)
    lone = np.flatnonzero(bad & (lengths == 1))
    bad[lone] = ~np.isnan(flat[(np.cumsum(lengths) - lengths)[lone]])
    return bad


def vectors(
    flat: npt.NDArray[np.float64], lengths: npt.NDArray[np.int64], size: int
) -> npt.NDArray[np.float64]:
    """(B, size) matrix of lists laid end to end: cut at `size`, NaN where a list is shorter."""
    matrix = np.full((len(lengths), size), np.nan)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    places = np.arange(len(flat)) - (np.cumsum(lengths) - lengths)[rows]
    kept = places < size
    matrix[rows[kept], places[kept]] = flat[kept]
    return matrix


def numbers_of(
    column: pa.Array | pa.ChunkedArray, spec: FieldSpec, decimal: Decimal = "."
) -> npt.NDArray[np.float64]:
    """(B,) the column as a numeric field reads it: numbers, or a part of times; NaN: missing."""
    if spec.derive is not None:
        return time_part(_seconds(column, spec), spec.derive)
    return to_numbers(column, decimal, spec.unit).values


def derived(column: pa.Array | pa.ChunkedArray, spec: FieldSpec) -> pa.Array | pa.ChunkedArray:
    """The column, or the part of its times that the field asks for; numbers with a point."""
    if spec.derive is None:
        return column if spec.decimal == "." else column_with_points(column)
    return pa.array(time_part(_seconds(column, spec), spec.derive))


def _seconds(column: pa.Array | pa.ChunkedArray, spec: FieldSpec) -> npt.NDArray[np.float64]:
    return to_seconds(column, spec.time_format, local=spec.local)


def derived_values(values: Sequence[Any], spec: FieldSpec) -> list[float]:
    """`derived` for a few Python values.

    Raises:
        DataError: one of them is a list, or a number or text that no time is.
    """
    assert spec.derive is not None
    starts = range(0, max(len(values), 1), _READ_AT_ONCE)
    seconds = [_seconds_of(values[start : start + _READ_AT_ONCE], spec) for start in starts]
    parts: list[float] = time_part(np.concatenate(seconds), spec.derive).tolist()
    return parts


def _seconds_of(values: Sequence[Any], spec: FieldSpec) -> npt.NDArray[np.float64]:
    rule = "takes one date or time per row"
    read = partial(seconds_of_values, time_format=spec.time_format, local=spec.local)
    try:
        seconds = read(values)
    except UNREADABLE as e:
        raise unfit(spec, rule, values, read) from e
    for i in np.flatnonzero(np.isnan(seconds)).tolist():
        if isinstance(values[i], str) and canonical(values[i]) is not None:
            raise _refusal(spec, rule, values[i])
    return seconds


def unfit(
    spec: FieldSpec, rule: str, values: Sequence[Any], read: Callable[[Sequence[Any]], object]
) -> DataError:
    """The error that `read` fails on values of a request, with the first that it fails on alone."""
    culprit = next((v for v in values if isinstance(v, str)), values[0])
    for value in values:
        try:
            read([value])
        except UNREADABLE:
            culprit = value
            break
    return _refusal(spec, rule, culprit)


def _refusal(spec: FieldSpec, rule: str, value: Any) -> DataError:
    return DataError(f"field {spec.source!r} {rule} but was given {one_line(value)}.")


def _spelled_out(value: Any) -> str | None:
    """A number among those of a text: 1e-05 would be two."""
    if isinstance(value, float) and math.isfinite(value):
        return np.format_float_positional(value, trim="-")
    return canonical(value)
