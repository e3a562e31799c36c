"""One user and many items to rows: gathers from encoded tables instead of look-ups per field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dynens.batch import (
    OUT_OF_VOCABULARY,
    Candidates,
    EncodedBatch,
    FloatArray,
    IntArray,
)
from dynens.data.encoding.fields import CategoricalEncoder

if TYPE_CHECKING:
    from dynens.data.encoding.encoders import RowEncoder


class Ranker:
    """Ranking requests to rows.

    It does not keep the encoder that owns it: a cycle would outlive a swapped bundle, since servers
    take what they have loaded out of the garbage collector's sight.
    """

    def __init__(self, encoder: RowEncoder) -> None:
        self._items = next(e for e in encoder.entities if e.entity == "item")
        self._users = next((e for e in encoder.entities if e.entity == "user"), None)
        self._item_dense, self._item_ids = self._items.ranges()
        # Where the item's key is itself a category, its ids lie ready in the order of the items.
        self._key_ids: dict[int, IntArray] = {}
        self._other_keys: list[int] = []
        for position in encoder.positions_of(self._items.key):
            field = encoder.encoders[position]
            if isinstance(field, CategoricalEncoder) and not field.spec.derive:
                ids = field.vocabulary.encode(pa.chunked_array([self._items.keys]))
                self._key_ids[position] = np.append(ids, OUT_OF_VOCABULARY).astype(np.int32)
            else:
                self._other_keys.append(position)
        self._table: EncodedBatch | None = None

    def item_table(self, encoder: RowEncoder) -> EncodedBatch | None:
        """The item columns of every item; None where a row is more than context and item columns.

        That is so where layout and joins disagree on which columns are the item's, or where a field
        reads the item's key as anything but a category, or is made of fields of both. The table
        takes as much memory as the item's part of `EncodedEntity` once more.
        """
        if self._table is None and self._is_separable(encoder):
            layout = encoder.layout
            rows = self.encode(encoder, None, {}, self._items.keys.to_pylist())
            self._table = EncodedBatch(
                np.ascontiguousarray(rows.dense[:, layout.context_dense :]),
                np.ascontiguousarray(rows.ids[:, layout.context_ids_width :]),
            )
        return self._table

    def _is_separable(self, encoder: RowEncoder) -> bool:
        """Whether only the item's table and key write the item's columns, and no others."""
        layout = encoder.layout
        first_dense, first_id = layout.context_dense, layout.context_ids_width
        keys = [encoder.columns_at(position) for position in self._key_ids]
        mine = [int(i) for i in self._items.ids_columns] + [at.start for _, at in keys]
        own = all(i >= first_id for i in mine)
        own &= bool((self._items.dense_columns >= first_dense).all())
        apart = all(self._is_context(encoder, p) for p in encoder.positions_of(encoder.user_key))
        if self._users is not None:
            apart &= bool((self._users.ids_columns < first_id).all())
            apart &= bool((self._users.dense_columns < first_dense).all())
        whole = not self._other_keys and not encoder.mixes_sides
        return layout.has_context and whole and own and apart

    @staticmethod
    def _is_context(encoder: RowEncoder, position: int) -> bool:
        """Whether all columns of one encoder are the context's."""
        dense, ids = encoder.columns_at(position)
        layout = encoder.layout
        in_dense: bool = dense.stop <= layout.context_dense
        in_ids: bool = ids.stop <= layout.context_ids_width
        return in_dense and in_ids

    def candidates(
        self,
        encoder: RowEncoder,
        user_id: Any,
        context: Mapping[str, Any],
        candidates: Sequence[Any],
    ) -> Candidates | None:
        """The rows by their place in the item table; None where one is not in it."""
        table = self.item_table(encoder)
        rows = self._items.known_rows_of(candidates) if table is not None else None
        if table is None or rows is None:
            return None
        for name in context:
            if not all(self._is_context(encoder, p) for p in encoder.positions_of(name)):
                return None
        dense, ids = self._context_row(encoder, user_id, context)
        encoder.write_made(ids)
        return Candidates(EncodedBatch(dense, ids), table, rows)

    def encode(
        self,
        encoder: RowEncoder,
        user_id: Any,
        context: Mapping[str, Any],
        candidates: Sequence[Any],
    ) -> EncodedBatch:
        """The rows, encoded."""
        base_dense, base_ids = self._context_row(encoder, user_id, context)
        found = self._items.rows_of(candidates)
        rows = np.array(found, np.int64)
        dense = np.repeat(base_dense, len(rows), axis=0)
        ids = np.repeat(base_ids, len(rows), axis=0)
        ids[:, self._item_ids] = self._items.ids[rows]
        if self._items.dense.shape[1]:
            dense[:, self._item_dense] = self._items.dense[rows]
        for position, key_ids in self._key_ids.items():
            ids[:, encoder.columns_at(position)[1].start] = key_ids[rows]
        unknown = len(self._items.keys)
        strangers = [i for i, row in enumerate(found) if row == unknown] if unknown in found else []
        for position in self._other_keys:
            self._write_keys(encoder, position, candidates, range(len(rows)), dense, ids)
        for position in self._key_ids if strangers else ():
            self._write_keys(encoder, position, candidates, strangers, dense, ids)
        encoder.write_made(ids)
        return EncodedBatch(dense, ids)

    def _context_row(
        self, encoder: RowEncoder, user_id: Any, context: Mapping[str, Any]
    ) -> tuple[FloatArray, IntArray]:
        """What all candidates share, as one row."""
        dense, ids = encoder.empty(1)
        if user_id is not None:
            if self._users is not None:
                self._users.write_row(user_id, dense, ids)
            encoder.write_values(encoder.user_key, [user_id], dense, ids)
        for name, values in encoder.with_dates({n: [v] for n, v in context.items()}).items():
            encoder.write_values(name, values, dense, ids)
        return dense, ids

    @staticmethod
    def _write_keys(
        encoder: RowEncoder,
        position: int,
        candidates: Sequence[Any],
        rows: Sequence[int],
        dense: FloatArray,
        ids: IntArray,
    ) -> None:
        """Encode the candidates of some rows as values of a field."""
        dense_at, ids_at = encoder.columns_at(position)
        part_dense, part_ids = dense[rows, dense_at], ids[rows, ids_at]
        encoder.encoders[position].encode_values(
            [candidates[i] for i in rows], part_dense, part_ids
        )
        dense[rows, dense_at], ids[rows, ids_at] = part_dense, part_ids
