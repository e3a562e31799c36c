"""Fitting field encoders on the training rows, one chunk at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.encoding.fields import (
    CategoricalEncoder,
    DenseVectorEncoder,
    FieldEncoder,
    NumericEncoder,
    derived,
    misfits,
    numbers_of,
    single_precision,
    vectors,
)
from dynens.data.encoding.list_field import LengthScale, MultiValuedEncoder
from dynens.data.encoding.samples import SystematicSample
from dynens.data.encoding.sentinels import sentinels
from dynens.data.encoding.vocabulary import ValueCounter, Vocabulary
from dynens.data.reading.lists import split_lists
from dynens.data.reading.numbers import MAX_UNREADABLE_SHARE, to_numbers
from dynens.errors import DataError
from dynens.schema import FieldSpec

SAMPLE_ROWS = 200_000
SAMPLE_VECTORS = 1_000
MAX_LEN = 20
_LONGER = 0.01  # share of lists that may be longer than what is kept of them
_OTHER_LENGTH = 0.01  # share of lists that must be of another length for it to tell something
_QUANTILES = 200
_GAPS = 3  # a pair of numbers is looked at at so many sizes of their difference
_EQUAL = 1e-6  # deviations of a scale that single precision hardly tells apart


class FieldFitter(ABC):
    """Sees the training values of one field, then makes its encoder.

    Args:
        spec: the field.
        first_row: training rows before those that will be added.
    """

    def __init__(self, spec: FieldSpec, first_row: int = 0) -> None:
        self.spec = spec

    @abstractmethod
    def add(self, column: pa.Array | pa.ChunkedArray) -> None:
        """Look at a chunk of training values."""

    @abstractmethod
    def merge(self, other: Any) -> None:
        """Take over what a fitter of the rows that follow has seen."""

    @abstractmethod
    def finish(self) -> FieldEncoder:
        """The fitted encoder."""

    def warning(self) -> str | None:
        """What the user should know of how values will be encoded."""
        return None


class VocabularyFitter(FieldFitter):
    """Counts values, for a vocabulary of them."""

    def __init__(self, spec: FieldSpec, first_row: int = 0) -> None:
        super().__init__(spec)
        self._counter = ValueCounter()
        self.owner: VocabularyFitter | None = None

    def merge(self, other: VocabularyFitter) -> None:
        self._counter.merge(other._counter)

    def vocabulary(self) -> Vocabulary:
        """The owner's ids for its values, where there is an owner, and others for the rest."""
        policy = self.spec.vocabulary
        own = Vocabulary(self._counter.most_common(policy), policy.hash_buckets)
        if self.owner is None:
            return own
        shared = self.owner.vocabulary()
        if shared.hash_buckets is not None:
            return shared
        rest = own.values.filter(pc.invert(pc.is_in(own.values, shared.values)))
        return Vocabulary(pa.concat_arrays([shared.values, rest]))


class CategoricalFitter(VocabularyFitter):
    """Counts categories."""

    def add(self, column: pa.Array | pa.ChunkedArray) -> None:
        if self.spec.vocabulary.hash_buckets is None:
            self._counter.add(derived(column, self.spec))

    def finish(self) -> CategoricalEncoder:
        return CategoricalEncoder(self.spec, self.vocabulary())


class MultiValuedFitter(VocabularyFitter):
    """Counts values and list lengths."""

    def __init__(self, spec: FieldSpec, first_row: int = 0) -> None:
        super().__init__(spec, first_row)
        self._lengths = np.zeros(0, np.int64)

    def add(self, column: pa.Array | pa.ChunkedArray) -> None:
        values, lengths = split_lists(column, self.spec.separator, fold=self.spec.fold_words)
        self._lengths = _padded_sum(self._lengths, np.bincount(lengths))
        if self.spec.vocabulary.hash_buckets is None:
            self._counter.add(values)

    def merge(self, other: Any) -> None:
        super().merge(other)
        self._lengths = _padded_sum(self._lengths, other._lengths)

    def finish(self) -> MultiValuedEncoder:
        return MultiValuedEncoder(self.spec, self.vocabulary(), self.width(), self._length_scale())

    def width(self) -> int:
        """Values that are kept of a list."""
        return self.spec.max_len or self._common_length()

    def warning(self) -> str | None:
        share = float(self._lengths[MAX_LEN + 1 :].sum()) / max(int(self._lengths.sum()), 1)
        if self.spec.max_len is not None or share <= _LONGER:
            return None
        return (
            f"{share:.0%} of the lists in {self.spec.source} are longer than {MAX_LEN} values, of "
            f"which the {self.spec.keep} {MAX_LEN} are kept; max_len and keep of the field say so"
        )

    def _length_scale(self) -> LengthScale | None:
        """Mean and deviation of log(1 + length); None where (nearly) all lengths are one."""
        total = int(self._lengths.sum())
        if not total or self._lengths.max() > (1 - _OTHER_LENGTH) * total:
            return None
        logs, weights = np.log1p(np.arange(len(self._lengths))), self._lengths
        mean = float(np.average(logs, weights=weights))
        deviation = float(np.sqrt(np.average((logs - mean) ** 2, weights=weights)))
        return LengthScale(mean, 1 / deviation)

    def _common_length(self) -> int:
        """The length that 99 % of the lists do not exceed, at most `MAX_LEN`."""
        if not self._lengths.sum():
            return 1
        share = np.cumsum(self._lengths) / self._lengths.sum()
        return int(np.clip(np.searchsorted(share, 1 - _LONGER), 1, MAX_LEN))


class NumericFitter(FieldFitter):
    """Keeps a sample of the values that is the same however the rows are chunked."""

    def __init__(self, spec: FieldSpec, first_row: int = 0) -> None:
        super().__init__(spec)
        self._sample = SystematicSample(SAMPLE_ROWS, first_row)
        self._has_missing = False
        self._texts = self._known = 0
        self.owner: NumericFitter | None = None

    def add(self, column: pa.Array | pa.ChunkedArray) -> None:
        if self.spec.derive is None:
            read = to_numbers(column, self.spec.decimal, self.spec.unit)
            numbers = read.values
            self._texts += read.num_unreadable
            self._known += read.num_unreadable + int(np.isfinite(numbers).sum())
        else:
            numbers = numbers_of(column, self.spec)
        self._has_missing = self._has_missing or bool(np.isnan(numbers).any())
        self._sample.add(numbers)

    def merge(self, other: NumericFitter) -> None:
        self._has_missing = self._has_missing or other._has_missing
        self._texts, self._known = self._texts + other._texts, self._known + other._known
        self._sample.merge(other._sample)

    def finish(self) -> NumericEncoder:
        values = self._values()
        knots, heights = self._transform()
        edges = np.zeros(0)
        if self.spec.buckets and len(values):
            points = np.linspace(0, 1, self.spec.buckets + 1)[1:-1]
            edges = np.unique(np.quantile(values, points, method="inverted_cdf"))
            edges = edges[edges < values.max()]
        is_time = self.spec.only_apart and self.owner is None
        has_missing = self._has_missing and not is_time
        holds_texts = self._texts > MAX_UNREADABLE_SHARE * self._known
        absent = self._sentinels
        has_missing |= bool(absent)
        return NumericEncoder(
            self.spec, knots, heights, has_missing, edges, self._gaps(), holds_texts, absent
        )

    @cached_property
    def _sentinels(self) -> dict[float, float]:
        """Of all rows, which have been added when this is asked."""
        spec = self.spec
        if not spec.sentinels or spec.derive or spec.apart_from or spec.only_apart:
            return {}
        return sentinels(self._finite())

    def _finite(self) -> npt.NDArray[np.float64]:
        values = self._sample.values()
        return single_precision(values[np.isfinite(values)])

    def _values(self) -> npt.NDArray[np.float64]:
        values = self._finite()
        return values[~np.isin(values, list(self._sentinels))] if self._sentinels else values

    def _transform(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The owner's scale, where there is an owner."""
        if self.owner is not None:
            return self.owner._transform()
        return _transform_of(self._values(), self.spec)

    def _gaps(self) -> list[tuple[float, float]]:
        """Of each third of what values are above the owner's of the same rows, the small, middling
        and large ones: their median, and 1 / the median deviation from it."""
        if self.owner is None:
            return []
        knots, heights = self._transform()
        mine, other = (
            NumericEncoder(f.spec, knots, heights, False, np.zeros(0)).transform(
                single_precision(f._sample.values())
            )
            for f in (self, self.owner)
        )
        apart = mine - other
        thirds = np.array_split(np.sort(apart[np.isfinite(apart)]), _GAPS)
        return list(dict.fromkeys(_middle_and_scale(third) for third in thirds))


def _middle_and_scale(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Median of the values, and 1 / the median deviation of those that it is not."""
    if not len(values):
        return 0.0, 1.0
    middle = float(np.median(values))
    deviations = np.abs(values - middle)
    deviations = deviations[deviations > _EQUAL]
    return middle, float(1 / np.median(deviations)) if len(deviations) else 1.0


class DenseVectorFitter(FieldFitter):
    """Adds up components; keeps a few vectors, for products with others."""

    def __init__(self, spec: FieldSpec, first_row: int = 0) -> None:
        super().__init__(spec)
        assert spec.length is not None
        self._length = spec.length
        self._fitting = self._other = 0
        # One row of (count, sum, sum of squares) per chunk, added up in order at the end: floating
        # point sums then do not depend on who saw which chunk.
        self._sums: list[npt.NDArray[np.float64]] = []
        self._sample = SystematicSample(SAMPLE_VECTORS, first_row)
        self._is_product = False
        self._partner: DenseVectorFitter | None = None

    def add(self, column: pa.Array | pa.ChunkedArray) -> None:
        values, lengths = split_lists(column, self.spec.separator)
        numbers = to_numbers(values).values
        self._fitting += int((lengths == self._length).sum())
        self._other += int(misfits(numbers, lengths, self._length).sum())
        matrix = vectors(numbers, lengths, self._length)
        self._sample.add(matrix)
        known = np.isfinite(matrix)
        matrix = np.where(known, matrix, 0.0)
        sums = (known.sum(axis=0), matrix.sum(axis=0), (matrix**2).sum(axis=0))
        self._sums.append(np.array(sums, np.float64))

    def merge(self, other: DenseVectorFitter) -> None:
        self._sums += other._sums
        self._sample.merge(other._sample)
        self._fitting += other._fitting
        self._other += other._other

    def warning(self) -> str | None:
        if not self._other:
            return None
        share = self._other / (self._fitting + self._other)
        return (
            f"{share:.0%} of the lists in {self.spec.source} are no vectors of {self._length} "
            "numbers, and count as missing"
        )

    def multiply_with(self, partner: DenseVectorFitter) -> None:
        """Make a product of the two vectors an input; their components then have one scale."""
        self._partner = partner
        self._is_product = partner._is_product = True

    def finish(self) -> DenseVectorEncoder:
        mean, scale = self._transform()
        return DenseVectorEncoder(self.spec, mean, scale, self._dot())

    def _transform(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean and 1 / deviation of each component; of products 0 and 1 / the root mean square."""
        if self._other and not self._fitting:
            raise DataError(
                f"field {self.spec.name!r} is a dense_vector of length {self._length}, and no row "
                "holds so many numbers; correct its length or its kind."
            )
        count, total, square = sum(self._sums, np.zeros((3, self._length)))
        if self._is_product:
            size = float(np.sqrt(square.sum() / max(count.sum(), 1)))
            return np.zeros(self._length), np.full(self._length, 1 / size if size > 0 else 0.0)
        count = np.maximum(count, 1)
        mean = total / count
        deviation = np.sqrt(np.maximum(square / count - mean**2, 0.0))
        return mean, np.where(deviation > 1e-12, 1 / np.maximum(deviation, 1e-12), 0.0)

    def _dot(self) -> tuple[float, float]:
        """Mean and 1 / deviation of the products with the partner in the rows that have both."""
        if self._partner is None:
            return 0.0, 1.0
        sides = [(f.spec, f._transform(), f._sample.values()) for f in (self, self._partner)]
        if not len(sides[0][2]):
            return 0.0, 1.0
        known = [np.isfinite(sample).all(axis=1) for _, _, sample in sides]
        both = known[0] & known[1]
        if not both.any():
            return 0.0, 1.0
        first, second = (
            DenseVectorEncoder(spec, *scale).transform(sample[both])
            for spec, scale, sample in sides
        )
        products = (first * second).sum(axis=1)
        deviation = float(products.std())
        return float(products.mean()), 1 / deviation if deviation > _EQUAL else 1.0


def _padded_sum(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sum of two vectors, the shorter one filled up with zeros."""
    total = np.zeros(max(len(a), len(b)), np.int64)
    total[: len(a)] += a
    total[: len(b)] += b
    return total


def _transform_of(
    values: npt.NDArray[np.float64], spec: FieldSpec
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(knots, heights) of the field's transform; see `NumericEncoder`."""
    if spec.transform == "log":
        values = np.sign(values) * np.log1p(np.abs(values))
    distinct = np.unique(values)
    if len(distinct) < 2:
        return np.array([distinct[0] if len(distinct) else 0.0]), np.array([0.0])
    if spec.transform == "none":
        return np.array([0.0]), np.array([1.0])
    if spec.transform == "quantile" and len(distinct) > 2:
        return _normal_scores(values, distinct)
    with np.errstate(over="ignore"):
        deviation = values.std()
    mean = float(values.mean())
    if not np.isfinite(deviation) or not np.isfinite(mean) or deviation <= 0:
        return _normal_scores(values, distinct)
    return np.array([mean]), np.array([1 / deviation])


def _normal_scores(
    values: npt.NDArray[np.float64], distinct: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Quantile knots with the normal score of their mid-rank, so that ties share one height."""
    if len(distinct) > _QUANTILES:
        points = np.linspace(0, 1, _QUANTILES)
        distinct = np.unique(np.quantile(values, points, method="inverted_cdf"))
    ordered = np.sort(values)
    below = np.searchsorted(ordered, distinct, side="left")
    up_to = np.searchsorted(ordered, distinct, side="right")
    ranks = np.clip((below + up_to) / 2 / len(ordered), 0.002, 0.998)
    normal = NormalDist()
    heights = np.array([normal.inv_cdf(float(rank)) for rank in ranks])
    # Centred and scaled over the rows themselves, ties included.
    transformed = np.interp(ordered, distinct, heights)
    deviation = transformed.std()
    scale = 1 / deviation if deviation > 1e-9 else 1.0
    return distinct, (heights - transformed.mean()) * scale
