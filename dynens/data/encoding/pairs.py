"""Fields made of two others: texts of pairs while they are fitted, ids ever after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.batch import FIRST_VALUE_ID, MISSING, OUT_OF_VOCABULARY, IntArray
from dynens.data.encoding.fields import CategoricalEncoder, FieldEncoder, derived
from dynens.data.reading.values import canonical_texts, plain
from dynens.schema import FieldSpec

BETWEEN = "\x1f"  # ASCII's unit separator


def sources_of(specs: Sequence[FieldSpec]) -> list[str]:
    """The columns that fields are read from."""
    return sorted({spec.source for spec in specs if spec.is_read})


def values_of(table: pa.Table, spec: FieldSpec, by_name: Mapping[str, FieldSpec]) -> pa.Array:
    """The raw values of a field; of two others' the texts of both, missing where either is."""
    if spec.is_read:
        return table[spec.source]
    sides = sides_of(spec, by_name)
    texts = [canonical_texts(plain(derived(table[side.source], side))) for side in sides]
    return pc.binary_join_element_wise(*texts, BETWEEN)


def sides_of(spec: FieldSpec, by_name: Mapping[str, FieldSpec]) -> list[FieldSpec]:
    """The two fields that one without a column is fitted on: a pair's, or key and category."""
    if spec.crossed is not None:
        names = spec.crossed
    else:
        assert spec.through is not None
        assert spec.vocabulary_of is not None
        names = (spec.through[1], spec.vocabulary_of)
    return [by_name[name] for name in names]


class PairIds:
    """The ids of a crossed field, by those of its sides.

    Args:
        pair: the crossed field's encoder.
        first, second: those of its sides.
        columns: where the three stand in encoded rows: pair, first, second (one column each).
    """

    def __init__(
        self,
        pair: CategoricalEncoder,
        first: CategoricalEncoder,
        second: CategoricalEncoder,
        columns: tuple[slice, slice, slice],
    ) -> None:
        self.columns = columns
        self._stride = second.vocabulary.num_embeddings
        texts = pc.split_pattern(pair.vocabulary.values, BETWEEN)
        sides = [
            side.vocabulary.encode(pa.chunked_array([pc.list_element(texts, i)]))
            if len(texts)
            else np.zeros(0, np.int32)
            for i, side in enumerate((first, second))
        ]
        keys = self._keys(*sides)
        # Of values that have no id of their own the pair has none either.
        known = (np.minimum(*sides) >= FIRST_VALUE_ID) if len(keys) else np.zeros(0, np.bool_)
        places = np.flatnonzero(known)
        order = places[np.argsort(keys[places], kind="stable")]
        self._sorted = np.append(keys[order], np.iinfo(np.int64).max)
        ids = np.append(order + FIRST_VALUE_ID, OUT_OF_VOCABULARY)
        self._ids: IntArray = ids.astype(np.int32)

    def _keys(self, first: IntArray, second: IntArray) -> npt.NDArray[np.int64]:
        return first.astype(np.int64) * self._stride + second

    def write(self, ids: IntArray) -> None:
        """Fill in the pair's column of encoded rows, whose other columns are there."""
        pair, first, second = (ids[:, at.start] for at in self.columns)
        keys = self._keys(first, second)
        places = np.searchsorted(self._sorted, keys)
        found = np.where(self._sorted[places] == keys, self._ids[places], OUT_OF_VOCABULARY)
        pair[:] = np.where((first == MISSING) | (second == MISSING), MISSING, found)


def pairs_of(encoders: Sequence[FieldEncoder], columns: Mapping[str, slice]) -> tuple[PairIds, ...]:
    """The crossed fields among encoders.

    Args:
        encoders: all of them.
        columns: where each field stands in the ids of encoded rows.
    """
    by_name = {e.spec.name: e for e in encoders if isinstance(e, CategoricalEncoder)}
    found = []
    for name, encoder in by_name.items():
        if encoder.spec.crossed is not None:
            names = (name, *encoder.spec.crossed)
            first, second = (by_name[side] for side in encoder.spec.crossed)
            places = (columns[names[0]], columns[names[1]], columns[names[2]])
            found.append(PairIds(encoder, first, second, places))
    return tuple(found)
