"""`RowEncoder`: raw rows to encoded rows, the one implementation of training and serving."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dynens.batch import (
    Candidates,
    DenseDot,
    DenseGap,
    EncodedBatch,
    FeatureLayout,
    FloatArray,
    IntArray,
)
from dynens.data.encoding.entities import EncodedEntity
from dynens.data.encoding.fields import (
    UNREADABLE,
    DenseVectorEncoder,
    FieldEncoder,
    NumericEncoder,
)
from dynens.data.encoding.lookups import LookedUpIds, lookups_of
from dynens.data.encoding.pairs import PairIds, pairs_of
from dynens.data.encoding.ranking import Ranker
from dynens.data.encoding.raw_inputs import inputs_of
from dynens.data.encoding.store import read_encoder, write_encoder
from dynens.data.reading.split_dates import NO_DATES, Dates, with_dates
from dynens.errors import DataError, about
from dynens.schema import Entity, FieldSpec

_ENTITY_ORDER = {"user": 0, "context": 1, "item": 2}
# Where a field stands in (dense, ids).
FieldColumns = tuple[slice, slice]
_VECTORISED_ROWS = 2048  # above, an Arrow column beats a Python loop


class RowEncoder:
    """Encodes raw rows.

    Args:
        encoders: one per field; laid out user, context, item (each in the order given), so that
            what a request's candidates share lies together.
        entities: the encoded user and item tables that keys are joined with.
        user_key: the user's column, None when there is none.
        item_key: the item's column, None when there is none.
        dates: columns that requests bring in parts.

    Attributes:
        layout: of the encoded rows.
        input_fields: the raw columns understood.
        text_columns: those of them that may hold any text, as others read them than numeric fields
            alone: there a text that is no number is a new value, and no mistake.
    """

    def __init__(
        self,
        encoders: Sequence[FieldEncoder],
        entities: Sequence[EncodedEntity] = (),
        user_key: str | None = None,
        item_key: str | None = None,
        dates: Dates = NO_DATES,
    ) -> None:
        ordered = sorted(encoders, key=lambda e: _ENTITY_ORDER[e.spec.entity])
        self.encoders = tuple(ordered)
        self.entities = tuple(entities)
        self.user_key, self.item_key = user_key, item_key
        self.layout = _layout(ordered, {user_key, item_key})
        self._slices = _column_slices(self.encoders)
        self._positions = _positions_by_column(self.encoders)
        self.dates = {name: parts for name, parts in dates.items() if name in self._positions}
        self.input_fields = inputs_of(self.encoders, self.entities, self.dates)
        numbers = ("numeric", "dense_vector")
        others = (e.spec for e in ordered if e.spec.kind not in numbers or e.spec.derive)
        self.text_columns = frozenset(
            {spec.source for spec in others if spec.is_read} | {e.key for e in self.entities}
        )
        for encoder in ordered:
            if encoder.spec.derive:
                continue
            if isinstance(encoder, (NumericEncoder, DenseVectorEncoder)):
                encoder.texts_are_missing = encoder.spec.source in self.text_columns
        ids_at = {name: at for name, (_, at) in self.field_columns().items()}
        self._made: tuple[PairIds | LookedUpIds, ...] = (
            *pairs_of(ordered, ids_at),
            *lookups_of(ordered, ids_at),
        )
        self._missing_dense, self._missing_ids = self._missing_row()
        self._ranker = Ranker(self) if self.has_item_entity else None

    @property
    def has_item_entity(self) -> bool:
        """Whether an item table was joined, so that candidates can be ranked by key alone."""
        return any(e.entity == "item" for e in self.entities)

    def _missing_row(self) -> tuple[FloatArray, IntArray]:
        dense = np.zeros(self.layout.num_dense, np.float32)
        ids = np.zeros(self.layout.ids_width, np.int32)
        for encoder, (dense_at, ids_at) in zip(self.encoders, self._slices, strict=True):
            dense[dense_at], ids[ids_at] = encoder.missing_row()
        return dense, ids

    def field_columns(self) -> dict[str, FieldColumns]:
        """The columns of every field in encoded rows."""
        return {e.spec.name: at for e, at in zip(self.encoders, self._slices, strict=True)}

    @property
    def joined_fields(self) -> frozenset[str]:
        """Raw columns that entity tables know, and the keys of these tables."""
        names = {entity.key for entity in self.entities}
        for encoder, (dense_at, ids_at) in zip(self.encoders, self._slices, strict=True):
            for entity in self.entities:
                is_dense = bool(encoder.dense) and dense_at.start in entity.dense_columns
                is_sparse = bool(encoder.sparse) and ids_at.start in entity.ids_columns
                if is_dense or is_sparse:
                    names.add(encoder.spec.source)
        return frozenset(names)

    def positions_of(self, column: str | None) -> tuple[int, ...]:
        """Which of the encoders read a raw column."""
        return self._positions.get(column or "", ())

    def count_strangers(self, entity: Entity, keys: Sequence[Any]) -> int:
        """How many of the keys an entity's table lacks; none where there is no such table."""
        tables = [table for table in self.entities if table.entity == entity]
        return sum(table.rows_of(keys).count(len(table.keys)) for table in tables)

    def separators_of(self, column: str) -> tuple[str | None, ...]:
        """At which the fields that read a raw column split its texts into lists."""
        specs = (self.encoders[position].spec for position in self.positions_of(column))
        return tuple(s.separator for s in specs if s.kind in ("multi_valued", "dense_vector"))

    def columns_at(self, position: int) -> FieldColumns:
        """The columns of one encoder in encoded rows."""
        return self._slices[position]

    def write_values(
        self, name: str | None, values: Sequence[Any], dense: FloatArray, ids: IntArray
    ) -> None:
        """Encode values of a raw column into the given rows; an unknown name is ignored."""
        for position in self.positions_of(name):
            dense_at, ids_at = self._slices[position]
            self.encoders[position].encode_values(values, dense[:, dense_at], ids[:, ids_at])

    @property
    def mixes_sides(self) -> bool:
        """Whether a field is made of others, some of which candidates share and some not."""
        first = self.layout.context_ids_width
        return any(len({at.start < first for at in made.columns}) > 1 for made in self._made)

    def write_made(self, ids: IntArray) -> None:
        """Fill in the fields that are made of others, which are there."""
        for made in self._made:
            made.write(ids)

    def empty(self, num_rows: int) -> tuple[FloatArray, IntArray]:
        """Rows with every field missing: (dense, ids)."""
        dense = np.empty((num_rows, self.layout.num_dense), np.float32)
        ids = np.empty((num_rows, self.layout.ids_width), np.int32)
        dense[:] = self._missing_dense
        ids[:] = self._missing_ids
        return dense, ids

    def encode_table(self, table: pa.Table) -> EncodedBatch:
        """Encode a table of raw rows (no labels).

        A column that is absent is looked up in the user or item table by key, where that has it;
        else it is missing.

        Raises:
            DataError: a column has a type that its field cannot read.
        """
        dense, ids = self.empty(table.num_rows)
        present = set(table.column_names)
        for entity in self.entities:
            if entity.key in present:
                with about(f"column {entity.key!r}"):
                    entity.join(table[entity.key], dense, ids)
        for encoder, (dense_at, ids_at) in zip(self.encoders, self._slices, strict=True):
            if encoder.spec.source in present and encoder.spec.is_read:
                column = table[encoder.spec.source]
                with about(f"column {encoder.spec.source!r}"):
                    encoder.encode(column, dense[:, dense_at], ids[:, ids_at])
        self.write_made(ids)
        return EncodedBatch(dense, ids)

    def encode_columns(self, columns: Mapping[str, Any]) -> EncodedBatch:
        """Encode named columns of raw Python values or NumPy arrays, without joins.

        A column left out is missing in every row; unknown names are ignored.

        Raises:
            DataError: the columns' lengths differ, or a value is not of its field's kind.
        """
        lengths = {len(values) for values in columns.values()}
        if len(lengths) > 1:
            raise DataError(f"the fields have different numbers of rows: {sorted(lengths)}.")
        num_rows = lengths.pop() if lengths else 0
        dense, ids = self.empty(num_rows)
        if not num_rows:
            return EncodedBatch(dense, ids)
        for name, values in self.with_dates(columns).items():
            positions = self._positions.get(name)
            if positions is not None:
                self._encode_column(values, positions, dense, ids)
        self.write_made(ids)
        return EncodedBatch(dense, ids)

    def _encode_column(
        self, values: Any, positions: tuple[int, ...], dense: FloatArray, ids: IntArray
    ) -> None:
        column = _as_arrow(values) if len(values) > _VECTORISED_ROWS else None
        if column is None and isinstance(values, np.ndarray):
            values = list(values) if values.ndim > 1 else values.tolist()
        for position in positions:
            encoder = self.encoders[position]
            dense_at, ids_at = self._slices[position]
            if column is not None and _holds_only(encoder.spec, column.type):
                encoder.encode(column, dense[:, dense_at], ids[:, ids_at])
            else:
                encoder.encode_values(values, dense[:, dense_at], ids[:, ids_at])

    def with_dates(self, columns: Mapping[str, Any]) -> Mapping[str, Any]:
        """Columns, and the dates that they are the parts of.

        Raises:
            DataError: a part is no single value.
        """
        try:
            return with_dates(columns, self.dates)
        except UNREADABLE as e:
            raise DataError(f"a year, month or day is no single value ({e}).") from e

    def encode_rank(
        self, user_id: Any, context: Mapping[str, Any], candidates: Sequence[Any]
    ) -> EncodedBatch:
        """Encode one user against many candidate items, features joined from the tables.

        Args:
            user_id: the user's key; None when unknown.
            context: raw values shared by all rows; they win over the user table's.
            candidates: item keys.

        Raises:
            DataError: there is no item table, or a numeric field was given a text.
        """
        if self._ranker is None:
            raise DataError("this model has no item table, so it cannot rank candidates by key.")
        return self._ranker.encode(self, user_id, context, candidates)

    def candidates(
        self, user_id: Any, context: Mapping[str, Any], candidates: Sequence[Any]
    ) -> Candidates | None:
        """As `encode_rank`, items by their place in the item table.

        None where one of them is not in it, or where rows do not come apart (`item_table`).
        """
        ranker = self._ranker
        return None if ranker is None else ranker.candidates(self, user_id, context, candidates)

    def item_table(self) -> EncodedBatch | None:
        """The item columns of every item of the table that candidates are joined with.

        None without such a table, or where a row is more than its context and item columns.
        """
        return None if self._ranker is None else self._ranker.item_table(self)

    def save(self, directory: Path) -> None:
        """Write to a folder (JSON, Arrow and npy files)."""
        write_encoder(self, directory)

    @classmethod
    def load(cls, directory: Path) -> RowEncoder:
        """Read what `save` wrote.

        Raises:
            BundleError: files are missing or damaged.
        """
        return cls(*read_encoder(directory))


def _layout(ordered: Sequence[FieldEncoder], key_columns: Container[str | None]) -> FeatureLayout:
    dense = tuple(name for e in ordered for name in e.dense)
    fields = tuple(field for e in ordered for field in e.sparse)
    context = [e for e in ordered if e.spec.entity != "item"]
    context_dense = sum(len(e.dense) for e in context)
    context_fields = sum(len(e.sparse) for e in context)
    if context_dense == len(dense) and context_fields == len(fields):
        context_dense = context_fields = 0  # nothing tells candidates apart
    numbers = [e for e in ordered if isinstance(e, NumericEncoder)]
    gaps = tuple(
        DenseGap(e.spec.name, e.spec.apart_from, *gap)
        for e in numbers
        for gap in e.gaps
        if e.spec.apart_from is not None
    )
    dots = tuple(
        DenseDot(e.spec.name, e.spec.dot_with, len(e.mean), *e.dot)
        for e in ordered
        if isinstance(e, DenseVectorEncoder) and e.spec.dot_with is not None
    )
    only_apart = tuple(e.spec.name for e in numbers if e.spec.only_apart)
    shares = tuple(e.spec.name for e in ordered if e.spec.through is not None or e.spec.share)
    keys = tuple(e.spec.name for e in ordered if e.spec.is_read and e.spec.source in key_columns)
    return FeatureLayout(
        dense, fields, context_dense, context_fields, gaps, dots, only_apart, shares, keys
    )


def _column_slices(encoders: Sequence[FieldEncoder]) -> list[FieldColumns]:
    slices, dense, sparse = [], 0, 0
    for encoder in encoders:
        width = sum(field.width for field in encoder.sparse)
        slices.append((slice(dense, dense + len(encoder.dense)), slice(sparse, sparse + width)))
        dense, sparse = dense + len(encoder.dense), sparse + width
    return slices


def _positions_by_column(encoders: Sequence[FieldEncoder]) -> dict[str, tuple[int, ...]]:
    positions: dict[str, tuple[int, ...]] = {}
    for i, encoder in enumerate(encoders):
        source = encoder.spec.source
        if encoder.spec.is_read:
            positions[source] = (*positions.get(source, ()), i)
    return positions


def _as_arrow(values: Any) -> pa.Array | None:
    """An Arrow array, or None where the values are too mixed for one."""
    try:
        return pa.array(values, from_pandas=True)
    except UNREADABLE:
        return None


def _holds_only(spec: FieldSpec, kind: pa.DataType) -> bool:
    """Whether no value of this type can break the field's rule."""
    if spec.kind == "dense_vector":
        return False  # the length of each list is part of the rule
    if spec.kind == "multi_valued":
        kind = kind.value_type if pa.types.is_list(kind) else kind
    if spec.kind == "numeric" or spec.derive is not None:
        return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
    return not pa.types.is_nested(kind)
