"""Fields that are looked up: what a list's values are by another field, as a history's categories.

Everything happens on ids, so that rows from files and from requests are looked up alike.

A value that has no id in the list, or whose category is not known, is out of vocabulary; of several
categories that one value was seen with, the most frequent holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynens.batch import MISSING, OUT_OF_VOCABULARY, PADDING, FloatArray, IntArray, SparseField
from dynens.data.encoding.entities import RawEntity
from dynens.data.encoding.fields import CategoricalEncoder, FieldEncoder
from dynens.data.encoding.fitting import FieldFitter, MultiValuedFitter, VocabularyFitter
from dynens.data.encoding.list_field import MultiValuedEncoder
from dynens.data.encoding.pairs import BETWEEN, sides_of, values_of
from dynens.data.encoding.vocabulary import ValueCounter
from dynens.schema import FieldSpec, VocabularyPolicy

_EVERY = VocabularyPolicy(min_count=1)


class LookUpEncoder(FieldEncoder):
    """A field that `LookedUpIds` fills in; by itself it is missing.

    Args:
        spec: the field.
        pairs: the values of the list and what is looked up, as texts with `BETWEEN` in between.
        width: values kept, as of the list.
        num_embeddings: as of the field that is looked up.
    """

    def __init__(
        self, spec: FieldSpec, pairs: pa.StringArray, width: int, num_embeddings: int
    ) -> None:
        super().__init__(spec)
        self.pairs, self.width, self.num_embeddings = pairs, width, num_embeddings
        self.sparse = (SparseField(spec.name, num_embeddings, width, spec.vocabulary_of),)

    def encode(self, column: pa.Array | pa.ChunkedArray, dense: FloatArray, ids: IntArray) -> None:
        self.encode_values(column, dense, ids)

    def encode_values(self, values: Sequence[Any], dense: FloatArray, ids: IntArray) -> None:
        """Whatever the values: missing until it is looked up."""
        ids[:] = PADDING
        ids[:, 0] = MISSING

    def state(self) -> dict[str, Any]:
        return {"width": self.width, "num_embeddings": self.num_embeddings}


class LookUpFitter(FieldFitter):
    """Counts which values of the list's field come with which of the other."""

    def __init__(self, spec: FieldSpec, first_row: int = 0) -> None:
        super().__init__(spec)
        self._counter = ValueCounter()
        self._listed: MultiValuedFitter | None = None
        self._wanted: VocabularyFitter | None = None

    def add(self, column: pa.Array | pa.ChunkedArray) -> None:
        self._counter.add(column)

    def merge(self, other: LookUpFitter) -> None:
        self._counter.merge(other._counter)

    def tie(self, by_name: Mapping[str, FieldFitter]) -> None:
        """Tell it of the fields that it depends on."""
        assert self.spec.through is not None
        listed = by_name[self.spec.through[0]]
        wanted = by_name[self.spec.vocabulary_of or ""]
        assert isinstance(listed, MultiValuedFitter)
        assert isinstance(wanted, VocabularyFitter)
        self._listed, self._wanted = listed, wanted

    def add_items(self, entity: RawEntity, by_name: Mapping[str, FieldSpec]) -> None:
        """Look at an entity's table, if it is what the list's values are keys of."""
        needed = {side.source for side in sides_of(self.spec, by_name)}
        if entity.key in needed and all(entity.has(name) for name in needed - {entity.key}):
            self.add(values_of(entity.table(), self.spec, by_name))

    def finish(self) -> LookUpEncoder:
        assert self._listed is not None
        assert self._wanted is not None
        known = self._counter.most_common(_EVERY)
        size = self._wanted.vocabulary().num_embeddings
        return LookUpEncoder(self.spec, known, self._listed.width(), size)


class LookedUpIds:
    """The ids of a looked-up field, by those of the list.

    Args:
        encoder: of the field.
        listed, wanted: of the list, and of the field that is looked up.
        columns: where field and list stand in encoded rows.
    """

    def __init__(
        self,
        encoder: LookUpEncoder,
        listed: MultiValuedEncoder,
        wanted: CategoricalEncoder,
        columns: tuple[slice, slice],
    ) -> None:
        self.columns = columns
        # The last one is what PADDING (-1) finds.
        self._ids = np.full(listed.vocabulary.num_embeddings + 1, OUT_OF_VOCABULARY, np.int32)
        self._ids[MISSING], self._ids[-1] = MISSING, PADDING
        if len(encoder.pairs):
            texts = pc.split_pattern(encoder.pairs, BETWEEN)
            keys, sought = (pa.chunked_array([pc.list_element(texts, i)]) for i in range(2))
            values, found = listed.vocabulary.encode(keys), wanted.vocabulary.encode(sought)
            known = np.flatnonzero(values > MISSING)[::-1]  # the most frequent is written last
            self._ids[values[known]] = found[known]

    def write(self, ids: IntArray) -> None:
        """Fill in the field's columns of encoded rows, where the list's are."""
        target, listed = self.columns
        ids[:, target] = self._ids[ids[:, listed]]


def lookups_of(
    encoders: Sequence[FieldEncoder], columns: Mapping[str, slice]
) -> tuple[LookedUpIds, ...]:
    """The looked-up fields among encoders.

    Args:
        encoders: all of them.
        columns: where each field stands in the ids of encoded rows.
    """
    by_name = {e.spec.name: e for e in encoders}
    found = []
    for encoder in encoders:
        if isinstance(encoder, LookUpEncoder):
            spec = encoder.spec
            assert spec.through is not None
            listed, wanted = by_name[spec.through[0]], by_name[spec.vocabulary_of or ""]
            assert isinstance(listed, MultiValuedEncoder)
            assert isinstance(wanted, CategoricalEncoder)
            places = columns[spec.name], columns[listed.spec.name]
            found.append(LookedUpIds(encoder, listed, wanted, places))
    return tuple(found)
