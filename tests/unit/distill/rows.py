"""Rows for tests of distillation, and what augmentations know of them."""

from collections.abc import Mapping

import numpy as np

from dynens.batch import MISSING, EncodedBatch, FeatureLayout
from dynens.distill.augment import Unit


def missing_row(layout: FeatureLayout) -> EncodedBatch:
    """One row in which every field, none of them a list, is missing."""
    dense = np.zeros((1, layout.num_dense), np.float32)
    return EncodedBatch(dense, np.full((1, layout.ids_width), MISSING, np.int32))


def units(layout: FeatureLayout, entities: Mapping[str, str] | None = None) -> tuple[Unit, ...]:
    """One unit for every column, `x#missing` with `x`; those that are not named are context."""
    dense: dict[str, list[int]] = {}
    ids: dict[str, list[int]] = {}
    for position, column in enumerate(layout.dense):
        dense.setdefault(column.partition("#")[0], []).append(position)
    for field, columns in layout.columns():
        ids.setdefault(field.name, []).extend(range(columns.start, columns.stop))
    names = dict.fromkeys([*ids, *dense])
    return tuple(
        Unit(
            name,
            np.array(dense.get(name, []), np.int64),
            np.array(ids.get(name, []), np.int64),
            (entities or {}).get(name, "context"),
        )
        for name in names
    )
