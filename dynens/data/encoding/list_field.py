"""Multi-valued fields: a list of categories to padded ids, and its length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.batch import MISSING, PADDING, FloatArray, IntArray, SparseField
from dynens.data.encoding.fields import UNREADABLE, FieldEncoder, unfit
from dynens.data.encoding.vocabulary import Vocabulary
from dynens.data.reading.lists import split_lists, split_text, takes_beginnings
from dynens.data.reading.values import canonical, text_of_bytes
from dynens.schema import FieldSpec

LENGTH_SUFFIX = "#length"
_MAX_KNOWN, _MAX_KNOWN_CHARS = 20_000, 256  # lists given as text whose ids are kept
_FARTHEST = 3.0


@dataclass(frozen=True)
class LengthScale:
    """How the number of values in a list becomes a dense value: log(1 + n), standardised.

    No value lies farther than three deviations from the mean: where lists are nearly equally long,
    a list that is missing would lie dozens of them away and decide the row alone.

    Attributes:
        mean, scale: of the logarithms over the training rows; `scale` is 1 / deviation.
    """

    mean: float
    scale: float

    def of(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The dense value of each length."""
        return np.clip((np.log1p(counts) - self.mean) * self.scale, -_FARTHEST, _FARTHEST)


class MultiValuedEncoder(FieldEncoder):
    """A list of categories to `width` ids, padded on the right, and its length.

    A bag's mean tells nothing of how many values it had, those that were cut off included.

    Args:
        spec: the field.
        vocabulary: ids of the values.
        width: values kept.
        length: scale of the length; None: no such column, as lists are equally long.
    """

    def __init__(
        self, spec: FieldSpec, vocabulary: Vocabulary, width: int, length: LengthScale | None = None
    ) -> None:
        super().__init__(spec)
        self.vocabulary = vocabulary
        self.width = width
        self.length = length
        self._known: dict[str, list[int]] = {}
        self.sparse = (
            SparseField(spec.name, vocabulary.num_embeddings, width, spec.vocabulary_of),
        )
        if length is not None:
            self.dense = (spec.name + LENGTH_SUFFIX,)

    def encode(self, column: pa.Array | pa.ChunkedArray, dense: FloatArray, ids: IntArray) -> None:
        values, lengths = split_lists(column, self.spec.separator, fold=self.spec.fold_words)
        flat = self.vocabulary.encode(values)
        known = flat != MISSING
        rows = np.repeat(np.arange(len(lengths)), lengths)[known]
        counts = np.bincount(rows, minlength=len(lengths))
        self._scatter(flat[known], rows, counts, ids)
        if self.length is not None:
            dense[:, 0] = self.length.of(counts)

    def _scatter(
        self,
        flat: IntArray,
        rows: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        ids: IntArray,
    ) -> None:
        starts = np.cumsum(lengths) - lengths
        places = np.arange(len(flat)) - starts[rows]
        if self.spec.keep == "last":
            places -= np.maximum(lengths - self.width, 0)[rows]
        kept = (places >= 0) & (places < self.width)
        ids[:] = PADDING
        ids[rows[kept], places[kept]] = flat[kept]
        ids[lengths == 0, 0] = MISSING

    def encode_values(self, values: Sequence[Any], dense: FloatArray, ids: IntArray) -> None:
        try:
            flat = self._flat(values)
        except UNREADABLE as e:
            raise unfit(self.spec, "takes lists of single values", values, self._flat) from e
        table = np.array(flat, np.int32).reshape(len(values), 1 + self.width)
        ids[:] = table[:, 1:]
        if self.length is not None:
            dense[:, 0] = self.length.of(table[:, 0].astype(np.int64))

    def _flat(self, values: Sequence[Any]) -> list[int]:
        """Of every list its length and its ids, end to end."""
        known, flat = self._known, []
        for value in values:
            row = known.get(value) if isinstance(value, str) else None
            if row is None:
                row = self._row(value)
            flat += row
        return flat

    def _row(self, value: Any) -> list[int]:
        """Length and ids of one list; those of texts are kept, for they come back."""
        row = self.vocabulary.encode_values(self._as_list(value))
        if MISSING in row:
            row = [i for i in row if i != MISSING]
        count = len(row)
        row = row[-self.width :] if self.spec.keep == "last" else row[: self.width]
        row = row or [MISSING]
        row = [count, *row, *[PADDING] * (self.width - len(row))]
        if isinstance(value, str) and len(value) <= _MAX_KNOWN_CHARS:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[value] = row
        return row

    def _as_list(self, value: Any) -> Sequence[Any]:
        if isinstance(value, str):
            return split_text(value, self.spec.separator, fold=self.spec.fold_words)
        if isinstance(value, (list, tuple)):
            return value
        if isinstance(value, np.ndarray):
            items: list[Any] = value.tolist()
            return items
        if isinstance(value, bytes):
            return self._as_list(text_of_bytes(value))
        separator = self.spec.separator
        if takes_beginnings(separator) and (text := canonical(value)) is not None:
            return split_text(text, separator)
        return () if value is None else (value,)

    def state(self) -> dict[str, Any]:
        length = None if self.length is None else [self.length.mean, self.length.scale]
        return {"width": self.width, "length": length}
