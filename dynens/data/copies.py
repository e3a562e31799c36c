"""Rows that repeat an earlier one in every column: deliveries made twice, files joined twice.

Cut at random, most copies in the later parts would have been trained on. Where single rows are the
rule they stay together. A table of few distinct rows is another matter: there equal rows are many
impressions alike, as future ones will be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.reading.values import plain
from dynens.data.splits import SPLITS, TEST, TRAIN, VALID, random_bits
from dynens.data.staging import staged_chunks

Hashes = npt.NDArray[np.uint64]
_FEWEST_DISTINCT = 0.5
_TOLD = 0.01
_MISSING = np.uint64(0x9E3779B97F4A7C15)
_WHOLE = {32: pa.int32(), 64: pa.int64()}


def copies_in(files: Sequence[Path]) -> Hashes | None:
    """(N,) one number per row of the staged files, equal for copies; None where they may part."""
    hashes = np.concatenate(
        [_hash_rows(table) for file in files for _, table in staged_chunks(file)]
    )
    distinct = len(np.unique(hashes))
    is_rule = _FEWEST_DISTINCT * len(hashes) <= distinct < len(hashes)
    return hashes if is_rule else None


def of_copies(copies: Hashes, given: npt.NDArray[np.int8]) -> list[str]:
    """Warnings of rows that repeat others, within what is cut and between files.

    Args:
        copies: (N,) of `copies_in`.
        given: (N,) the part each row's file was given as.
    """
    cut = copies[given == TRAIN]
    share = 1 - len(np.unique(cut)) / max(len(cut), 1)
    warnings = []
    if share >= _TOLD:
        warnings.append(
            f"{share:.0%} of the rows repeat another in every column that is read; copies stay in "
            "one part, but each counts in training: remove them if they are one event"
        )
    for part in (VALID, TEST):
        rows = copies[given == part]
        share = np.isin(rows, cut).mean() if len(rows) else 0.0
        if share >= _TOLD:
            warnings.append(
                f"{share:.0%} of the {SPLITS[part]} rows stand among the training rows, too, where "
                "models learn their labels; remove them there"
            )
    return warnings


def _hash_rows(table: pa.Table) -> Hashes:
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
