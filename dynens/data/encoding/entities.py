"""User and item tables: joined raw while fitting, kept encoded for serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.batch import FloatArray, IntArray
from dynens.data.encoding.vocabulary import is_whole
from dynens.data.reading.sources import read_table
from dynens.data.reading.values import canonical, canonical_codes, canonical_texts, plain
from dynens.errors import DataError, SchemaError
from dynens.schema import DatasetConfig, Entity, EntityTable


class RawEntity:
    """One entity's tables as they are, rows found by key.

    Args:
        entity: whose features these are.
        key: the key's column.
        table: one row per key.
    """

    def __init__(self, entity: Entity, key: str, table: pa.Table) -> None:
        self.entity, self.key = entity, key
        keys = canonical_texts(plain(table[key]))
        known = keys.is_valid()
        self.keys = keys.filter(known)
        self.columns = table.drop_columns([key]).filter(known).combine_chunks()
        twice = len(self.keys) - pc.count_distinct(self.keys).as_py()
        if twice:
            raise DataError(
                f"the {entity} table holds {twice} repeated values of its key {key!r}; "
                "keep one row for each."
            )

    def rows_of(self, column: pa.Array | pa.ChunkedArray) -> pa.Array:
        """(B,) int32 row of each key, null where unknown."""
        texts, codes = canonical_codes(column)
        rows = pc.index_in(texts, self.keys)
        return rows.take(pa.array(codes, mask=codes < 0))

    def join(self, table: pa.Table, columns: Sequence[str]) -> pa.Table:
        """`table` with those of this entity's columns that it does not have itself."""
        absent = [c for c in columns if c not in table.column_names and self.has(c)]
        if not absent or self.key not in table.column_names:
            return table
        rows = self.rows_of(table[self.key])
        for name in absent:
            table = table.append_column(name, self.columns[name].take(rows))
        return table

    def table(self) -> pa.Table:
        """The columns and the key."""
        return self.columns.append_column(self.key, self.keys)

    def has(self, column: str) -> bool:
        return column in self.columns.column_names


def load_entities(config: DatasetConfig) -> list[RawEntity]:
    """The entity tables of a dataset; several tables of one key become one.

    Raises:
        DataError: a table cannot be read or repeats a key.
        SchemaError: a table lacks its key, or one entity has two keys.
    """
    grouped: dict[str, list[EntityTable]] = {}
    for spec in config.entities:
        grouped.setdefault(spec.entity, []).append(spec)
    entities = []
    for specs in grouped.values():
        keys = {spec.key for spec in specs}
        if len(keys) > 1:
            raise SchemaError(
                f"the {specs[0].entity} tables are joined by different keys {sorted(keys)}; "
                "use one key per entity."
            )
        entities.append(_merge([_load(spec, config) for spec in specs]))
    return entities


def _load(spec: EntityTable, config: DatasetConfig) -> RawEntity:
    table = read_table(spec.files, config.source)
    key, names = spec.key_in_table or spec.key, table.column_names
    if key not in names:
        raise SchemaError(
            f"{spec.files[0]} has no key column {key!r}; it has {names[:20]}: name one as "
            "key_in_table."
        )
    if key != spec.key and spec.key in names:
        raise SchemaError(
            f"{spec.files[0]} has a column {spec.key!r} beside its key {key!r}, which is called so "
            "in the interactions; rename one."
        )
    names = [spec.key if name == key else name for name in names]
    return RawEntity(spec.entity, spec.key, table.rename_columns(names))


def _merge(parts: list[RawEntity]) -> RawEntity:
    if len(parts) == 1:
        return parts[0]
    keys = pc.unique(pa.concat_arrays([part.keys for part in parts]))
    table = pa.table({parts[0].key: keys})
    for part in parts:
        table = part.join(table, part.columns.column_names)
    return RawEntity(parts[0].entity, parts[0].key, table)


@dataclass
class EncodedEntity:
    """An entity's rows, encoded; the last row is that of an unknown key.

    Attributes:
        entity: whose features these are.
        key: the key's raw column.
        keys: canonical keys, one per row but the last.
        dense: (keys + 1, len(dense_columns)) float32.
        ids: (keys + 1, len(ids_columns)) int32.
        dense_columns: where `dense` stands in an encoded row.
        ids_columns: where `ids` stands.
    """

    entity: Entity
    key: str
    keys: pa.StringArray
    dense: FloatArray
    ids: IntArray
    dense_columns: npt.NDArray[np.int64]
    ids_columns: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        self._rows: dict[Any, int] | None = None

    def _table(self) -> dict[Any, int]:
        if self._rows is None:
            texts = self.keys.to_pylist()
            rows: dict[Any, int] = {text: row for row, text in enumerate(texts)}
            # Whole numbers are found as they are, without being written out first.
            rows.update({int(t): r for t, r in list(rows.items()) if is_whole(t)})
            self._rows = rows
        return self._rows

    def rows_of(self, values: Sequence[Any]) -> list[int]:
        """The row of each raw key; unknown keys get the last one.

        Raises:
            DataError: a key is a list or mapping.
        """
        table, unknown = self._table(), len(self.keys)
        try:
            rows = [table.get(v, -1) for v in values]
            if -1 in rows:
                rows = [
                    table.get(canonical(v), unknown) if row < 0 else row
                    for v, row in zip(values, rows, strict=True)
                ]
        except TypeError as e:
            raise DataError(f"a key {self.key!r} is one value, not a list or mapping.") from e
        return rows

    def known_rows_of(self, values: Sequence[Any]) -> IntArray | None:
        """(N,) row of each raw key, None where one is unknown or not written as in the table."""
        try:
            return np.fromiter(map(self._table().__getitem__, values), np.int32, len(values))
        except (KeyError, TypeError):
            return None

    def write_row(self, value: Any, dense: FloatArray, ids: IntArray) -> None:
        """Write one key's features into every given row."""
        row = self.rows_of([value])[0]
        dense[:, self.dense_columns] = self.dense[row]
        ids[:, self.ids_columns] = self.ids[row]

    def join(self, column: pa.ChunkedArray, dense: FloatArray, ids: IntArray) -> None:
        """Write the features of a column of keys."""
        texts, codes = canonical_codes(column)
        positions = pc.index_in(texts, self.keys).fill_null(len(self.keys))
        rows = np.append(positions.to_numpy(zero_copy_only=False), len(self.keys))[codes]
        dense[:, self.dense_columns] = self.dense[rows]
        ids[:, self.ids_columns] = self.ids[rows]

    def ranges(self) -> tuple[Any, Any]:
        """(dense, ids) columns as slices where they are contiguous."""
        return _as_range(self.dense_columns), _as_range(self.ids_columns)


def _as_range(columns: npt.NDArray[np.int64]) -> slice | npt.NDArray[np.int64]:
    if len(columns) and (np.diff(columns) == 1).all():
        return slice(int(columns[0]), int(columns[-1]) + 1)
    return columns
