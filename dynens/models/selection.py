"""Field subsets: which columns of an encoded row a learner looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynens.batch import FeatureLayout, FloatArray, SparseField, component_names, field_offsets
from dynens.data.encoding.list_field import LENGTH_SUFFIX
from dynens.errors import ConfigError
from dynens.layers.dots import DotColumns, dots
from dynens.layers.gaps import ApartColumns, gaps
from dynens.layers.matches import SharedValues, matches, shares
from dynens.layers.pairs import ColumnPair, PairInputs
from dynens.models.base import StatSource

STATS_PER_FIELD = 2


@dataclass(frozen=True)
class FeatureGroup:
    """Features of an encoded row that vary together.

    Attributes:
        fields: its sparse fields.
        dense_columns: its columns of `dense`.
        id_columns: its columns of `ids`.
        is_context: whether the candidates of a ranking request share them.
    """

    fields: tuple[SparseField, ...]
    dense_columns: tuple[int, ...]
    id_columns: tuple[int, ...]
    is_context: bool = False


@dataclass(frozen=True)
class FeatureSelection:
    """The selected features and their columns in `dense`, `ids` and the statistics.

    Statistics hold the target encodings of all fields, then the count encodings of all fields.
    """

    fields: tuple[SparseField, ...]
    dense_columns: tuple[int, ...]
    id_columns: tuple[int, ...]
    stat_columns: tuple[int, ...]
    flat_rows: tuple[tuple[int, int], ...]
    """Of each selected field: its first and one-past-last row in the full flat table."""
    context_dense: int = 0
    context_fields: int = 0
    """How many of the first selected dense features and fields candidates share."""
    pairs: tuple[PairInputs, ...] = ()
    """What selected features that belong together say of each other."""

    @property
    def num_pairs(self) -> int:
        """How many inputs come of pairs."""
        return sum(len(kind) for kind in self.pairs)

    def groups(self) -> tuple[FeatureGroup, ...]:
        """What candidates share and the rest; one group where one side is empty."""
        dense, fields = self.context_dense, self.context_fields
        ids = sum(field.width for field in self.fields[:fields])
        context = FeatureGroup(
            self.fields[:fields], self.dense_columns[:dense], self.id_columns[:ids], True
        )
        rest = FeatureGroup(self.fields[fields:], self.dense_columns[dense:], self.id_columns[ids:])
        sizes = [len(g.fields) + len(g.dense_columns) for g in (context, rest)]
        if all(sizes):
            return context, rest
        return (FeatureGroup(self.fields, self.dense_columns, self.id_columns),)

    def table(self, stats: StatSource) -> FloatArray:
        """The rows of the statistics' flat table that belong to the selected fields."""
        parts = [np.asarray(stats.table[start:stop]) for start, stop in self.flat_rows]
        empty = np.zeros((0, STATS_PER_FIELD), np.float32)
        return np.concatenate([empty, *parts]).astype(np.float32)


def select_features(layout: FeatureLayout, names: tuple[str, ...] | None) -> FeatureSelection:
    """Resolve `LearnerConfig.fields` against a layout; a list comes with its length.

    Raises:
        ConfigError: a name is no feature of the table.
    """
    known = {*layout.dense, *(field.name for field in layout.fields)}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ConfigError(
            f"fields names {unknown[0]!r}, which the table lacks; choose from {sorted(known)}."
        )
    wanted = known if names is None else set(names)
    fields: list[SparseField] = []
    id_columns: list[int] = []
    positions: list[int] = []
    flat_rows: list[tuple[int, int]] = []
    columns_of: dict[str, slice] = {}
    offsets = field_offsets(layout.fields)
    for position, (field, columns) in enumerate(layout.columns()):
        if field.name in wanted:
            fields.append(field)
            columns_of[field.name] = columns
            id_columns.extend(range(columns.start, columns.stop))
            positions.append(position)
            first = offsets[position]
            flat_rows.append((first - 1, first + field.num_embeddings))
    chosen = {
        name: i
        for i, name in enumerate(layout.dense)
        if name in wanted or name.removesuffix(LENGTH_SUFFIX) in wanted
    }
    dense = tuple(i for name, i in chosen.items() if name not in layout.only_apart)
    stat_columns = [
        kind * len(layout.fields) + position
        for kind in range(STATS_PER_FIELD)
        for position in positions
    ]
    return FeatureSelection(
        tuple(fields),
        dense,
        tuple(id_columns),
        tuple(stat_columns),
        tuple(flat_rows),
        context_dense=sum(i < layout.context_dense for i in dense),
        context_fields=sum(i < layout.context_fields for i in positions),
        pairs=_pairs(layout, fields, columns_of, chosen),
    )


def _pairs(
    layout: FeatureLayout,
    fields: Sequence[SparseField],
    columns: Mapping[str, slice],
    place: Mapping[str, int],
) -> tuple[PairInputs, ...]:
    """Those of selected features: ids in `columns`, dense ones at their `place`."""
    looked_up = [field for field in fields if field.name in layout.shares]
    kinds: list[tuple[Any, bool, Sequence[ColumnPair]]] = [
        (matches, True, _shared_values(layout, fields, columns)),
        (shares, True, _shared_values(layout, looked_up, columns)),
        (gaps, False, _gaps(layout, place)),
        (dots, False, _dots(layout, place)),
    ]
    return tuple(
        PairInputs(function, reads_ids, tuple(pairs))
        for function, reads_ids, pairs in kinds
        if pairs
    )


def _shared_values(
    layout: FeatureLayout, fields: Sequence[SparseField], columns: Mapping[str, slice]
) -> list[SharedValues]:
    found = []
    for field in fields:
        owner = columns.get(field.vocabulary_of or "")
        if owner is not None:
            taker = columns[field.name]
            sides = _sides(taker.stop, owner.stop, layout.context_ids_width)
            found.append(SharedValues(taker, owner, **sides))
    return sorted(found, key=lambda pair: not pair.is_context)


def _gaps(layout: FeatureLayout, place: Mapping[str, int]) -> list[ApartColumns]:
    found = []
    for gap in layout.gaps:
        if gap.taker in place and gap.owner in place:
            taker, owner = place[gap.taker], place[gap.owner]
            sides = _sides(taker + 1, owner + 1, layout.context_dense)
            found.append(ApartColumns(taker, owner, gap.middle, gap.scale, **sides))
    return sorted(found, key=lambda pair: pair.sides)


def _dots(layout: FeatureLayout, place: Mapping[str, int]) -> list[DotColumns]:
    found = []
    for dot in layout.dots:
        vectors = [component_names(name, dot.length) for name in (dot.taker, dot.owner)]
        if all(name in place for names in vectors for name in names):
            taker, owner = (slice(place[n[0]], place[n[-1]] + 1) for n in vectors)
            sides = _sides(taker.stop, owner.stop, layout.context_dense)
            found.append(DotColumns(taker, owner, dot.middle, dot.scale, **sides))
    return sorted(found, key=lambda pair: not pair.is_context)


def _sides(taker_stop: int, owner_stop: int, context_width: int) -> dict[str, bool]:
    """Which sides of a pair, that end at these columns, the context holds."""
    return {
        "taker_is_context": taker_stop <= context_width,
        "owner_is_context": owner_stop <= context_width,
    }
