"""Values to ids: which values get one, and looking them up by column or one by one."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynens.batch import FIRST_VALUE_ID, MISSING, OUT_OF_VOCABULARY, IntArray
from dynens.data.reading.values import canonical, canonical_codes
from dynens.schema import VocabularyPolicy

_MERGE_ROWS = 1_000_000
_PART = 4096
_LARGE_VOCABULARY = 50_000  # above, a dict kept beats Arrow's table, which is built on every call


class ValueCounter:
    """Counts canonical values chunk by chunk; the result does not depend on the chunking."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []
        self._rows = 0
        self._merged_rows = 0

    def add(self, column: pa.Array | pa.ChunkedArray) -> None:
        """Count the values of a column (missing ones are left out)."""
        texts, codes = canonical_codes(column)
        counts = np.bincount(codes[codes >= 0], minlength=len(texts))
        table = pa.table({"value": texts, "count": pa.array(counts.astype(np.int64))})
        self._parts.append(table.filter(pc.greater(table["count"], 0)))
        self._rows += self._parts[-1].num_rows
        self._merge_when_due()

    def _merge_when_due(self) -> None:
        if self._rows > max(_MERGE_ROWS, 2 * self._merged_rows):
            self._merge()

    def merge(self, other: ValueCounter) -> None:
        """Add another counter's counts."""
        self._parts += other._parts
        self._rows += other._rows
        self._merge_when_due()

    def _merge(self) -> pa.Table:
        if not self._parts:
            return pa.table({"value": pa.array([], pa.string()), "count": pa.array([], pa.int64())})
        merged = pa.concat_tables(self._parts).group_by("value").aggregate([("count", "sum")])
        merged = merged.rename_columns(["value", "count"])
        self._parts, self._rows = [merged], merged.num_rows
        self._merged_rows = merged.num_rows
        return merged

    def most_common(self, policy: VocabularyPolicy) -> pa.StringArray:
        """The values that deserve an id, by falling count, then by text."""
        table = self._merge()
        table = table.filter(pc.greater_equal(table["count"], policy.min_count))
        table = table.sort_by([("count", "descending"), ("value", "ascending")])
        values = table["value"].slice(0, policy.max_size).combine_chunks()
        return values if isinstance(values, pa.Array) else pa.array([], pa.string())


class Vocabulary:
    """Ids of canonical values: a list of known values, or hash buckets.

    Id 0 is out of vocabulary, 1 missing, `2 + position` a known value (or `2 + bucket`).
    """

    def __init__(self, values: pa.StringArray, hash_buckets: int | None = None) -> None:
        self.values = values
        self.hash_buckets = hash_buckets
        self._by_text: dict[str, int] | None = None
        self._by_number: dict[int, int] | None = None

    @property
    def num_embeddings(self) -> int:
        return FIRST_VALUE_ID + (self.hash_buckets or len(self.values))

    def encode(self, column: pa.Array | pa.ChunkedArray) -> IntArray:
        """(B,) int32 ids of a column."""
        texts, codes = canonical_codes(column)
        ids: IntArray = np.append(self._ids_of(texts), np.int32(MISSING))[codes]
        return ids

    def _ids_of(self, texts: pa.StringArray) -> IntArray:
        if self.hash_buckets:
            return np.array([self._bucket(t) for t in texts.to_pylist()], np.int32)
        if len(self.values) > _LARGE_VOCABULARY and 4 * len(texts) < len(self.values):
            return np.array(self._found(texts.to_pylist()), np.int32)
        positions = pc.index_in(texts, self.values).fill_null(OUT_OF_VOCABULARY - FIRST_VALUE_ID)
        ids: IntArray = positions.to_numpy(zero_copy_only=False).astype(np.int32) + FIRST_VALUE_ID
        return ids

    def _found(self, texts: list[str]) -> list[int]:
        get = self._texts().get
        return [get(t, OUT_OF_VOCABULARY) for t in texts]

    def _bucket(self, text: str) -> int:
        assert self.hash_buckets is not None
        return FIRST_VALUE_ID + zlib.crc32(text.encode("utf-8")) % self.hash_buckets

    def id_of(self, value: Any) -> int:
        """The id of one raw value."""
        text = canonical(value)
        if text is None:
            return MISSING
        if self.hash_buckets:
            return self._bucket(text)
        return self._texts().get(text, OUT_OF_VOCABULARY)

    def _texts(self) -> dict[str, int]:
        if self._by_text is None:
            # In parts: Arrow does not let go of the interpreter meanwhile, and a server that loads
            # another bundle in a thread goes on answering.
            starts = range(0, len(self.values), _PART)
            texts = (t for s in starts for t in self.values.slice(s, _PART).to_pylist())
            self._by_text = {text: id_ for id_, text in enumerate(texts, FIRST_VALUE_ID)}
        return self._by_text

    def _numbers(self) -> dict[int, int]:
        if self._by_number is None:
            texts = self._texts()
            self._by_number = {int(t): i for t, i in texts.items() if is_whole(t)}
        return self._by_number

    def encode_values(self, values: Sequence[Any]) -> list[int]:
        """Ids of a few raw values; the fast road for values already in canonical form."""
        if self.hash_buckets:
            return [self.id_of(v) for v in values]
        get = self.lookup_for(values[0] if values else None)
        ids = [get(v, -1) for v in values]
        if -1 in ids:
            ids = [self.id_of(v) if i < 0 else i for v, i in zip(values, ids, strict=True)]
        return ids

    def lookup_for(self, example: Any) -> Callable[[Any, int], int]:
        """`dict.get` of the table that values like `example` are found in directly."""
        if isinstance(example, str) or not isinstance(example, (int, float)):
            return self._texts().get
        return self._numbers().get


def is_whole(text: str) -> bool:
    """Whether a canonical text is that of an integer."""
    digits = text.removeprefix("-")
    return (
        text != "-0"
        and digits.isascii()
        and digits.isdigit()
        and (digits == "0" or digits[0] != "0")
    )
