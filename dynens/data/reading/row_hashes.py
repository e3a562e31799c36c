"""64 bits of every row's values, and the rows that repeat others in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.reading.values import plain

Hashes = npt.NDArray[np.uint64]
_FEWEST_DISTINCT = 0.5
_MISSING = np.uint64(0x9E3779B97F4A7C15)
_WHOLE = {32: pa.int32(), 64: pa.int64()}


def copies_among(tables: Iterable[pa.Table]) -> Hashes | None:
    """(N,) one number per row of tables of the same columns, equal for copies.

    None where there are none, and where few rows are distinct: equal rows are many rows alike then.
    """
    hashes = np.concatenate([hash_rows(table) for table in tables])
    distinct = len(np.unique(hashes))
    is_rule = _FEWEST_DISTINCT * len(hashes) <= distinct < len(hashes)
    return hashes if is_rule else None


def random_bits(row_numbers: npt.NDArray[np.int64], salt: np.uint64) -> npt.NDArray[np.uint64]:
    """(B,) 64 bits of each row, by its number alone.

    References:
        Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014
        (SplitMix64).
    """
    x = row_numbers.astype(np.uint64) + salt
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def hash_rows(table: pa.Table) -> Hashes:
    """(B,) 64 bits of each row's values."""
    rows = np.zeros(table.num_rows, np.uint64)
    for number, column in enumerate(table.columns):
        values = _hash_values(plain(column))
        rows = random_bits((rows ^ values).view(np.int64), np.uint64(number + 1))
    return rows


def _hash_values(column: pa.Array) -> Hashes:
    """(B,) 64 bits of each value, the same for the same value in any chunk."""
    if pa.types.is_temporal(column.type) and column.type.bit_width in _WHOLE:
        column = column.view(_WHOLE[column.type.bit_width])  # Python knows no nanoseconds
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind):
        known = column.is_valid().to_numpy(zero_copy_only=False)
        wide = pa.float64() if pa.types.is_floating(kind) else pa.int64()
        bits = column.cast(wide, safe=False).fill_null(0).to_numpy(zero_copy_only=False)
        return np.where(known, bits.view(np.uint64), _MISSING)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _hash_lists(column)
    if pa.types.is_nested(kind):
        column = pa.array(map(repr, column.to_pylist()), pa.string())
    encoded = column.dictionary_encode()
    texts = [repr(value).encode() for value in encoded.dictionary.to_pylist()]
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    bits = np.append(np.frombuffer(digests, np.uint64), _MISSING)
    return np.asarray(bits[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)])


def _hash_lists(column: pa.Array) -> Hashes:
    """(B,) of each list's values in their order."""
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    lengths = lengths.astype(np.int64)
    values, row = _hash_values(plain(column.flatten())), np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    place = np.arange(len(values)) - starts[row]
    placed = random_bits(values.view(np.int64), np.uint64(1)) ^ place.astype(np.uint64)
    bits = random_bits(placed.view(np.int64), np.uint64(2))
    totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(bits)])  # beyond 64 bits they wrap
    sums = totals[starts + lengths] - totals[starts]
    hashes = random_bits((sums ^ lengths.astype(np.uint64)).view(np.int64), np.uint64(3))
    known = column.is_valid().to_numpy(zero_copy_only=False)
    return np.where(known, hashes, _MISSING)
