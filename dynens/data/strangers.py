"""Keys and values that were not met before or stand for none: what to tell of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dynens.data.encoding.encoders import RowEncoder
from dynens.data.encoding.entities import RawEntity
from dynens.data.encoding.fields import CategoricalEncoder, NumericEncoder
from dynens.data.splits import SPLITS, TRAIN

_MANY_KEYS = 0.05
_NEARLY_ALL, _HALF = 0.9, 0.5
_NAMED = 5  # in one warning


def of_keys(entities: Sequence[RawEntity], strangers: Counter[str], num_rows: int) -> list[str]:
    """Warnings of rows whose keys the entity tables lack.

    Args:
        entities: the tables.
        strangers: such rows by entity.
        num_rows: all rows.
    """
    return [
        f"{strangers[entity.entity] / num_rows:.0%} of the rows have a {entity.key} that the "
        f"{entity.entity} table lacks, so that its columns are missing there; are keys spelled "
        "alike?"
        for entity in entities
        if strangers[entity.entity] > _MANY_KEYS * num_rows
    ]


def of_values(
    encoder: RowEncoder,
    unseen: npt.NDArray[np.int64],
    num_rows: Sequence[int],
    expected: str | None = None,
) -> list[str]:
    """Warnings of categories whose values in another split have no id.

    Args:
        encoder: fitted.
        unseen: (splits, ids_width) rows whose value has no id.
        num_rows: rows of every split.
        expected: a column that is split so that this is meant.
    """
    shares = unseen / np.maximum(np.array(num_rows), 1)[:, None]
    warnings = []
    for one in encoder.encoders:
        is_read = isinstance(one, CategoricalEncoder) and one.spec.is_read
        if not is_read or one.spec.source == expected:
            continue
        share = shares[:, encoder.field_columns()[one.spec.name][1]].max(axis=1)
        split = int(share.argmax())
        if share[split] > _NEARLY_ALL and share[TRAIN] < _HALF:
            part = one.spec.derive
            what = f"{part or 'value'} of {one.spec.source}"
            ask = "does the table go on long enough" if part else "are values spelled alike"
            warnings.append(
                f"{share[split]:.0%} of the {SPLITS[split]} rows have a {what} that no "
                f"training row has, or one alone; {ask}, and do they come back?"
            )
    return warnings


def of_sentinels(encoder: RowEncoder) -> list[str]:
    """A warning of numbers that stand for missing ones."""
    found = [
        f"{value:g} in {share:.0%} of {one.spec.source}"
        for one in encoder.encoders
        if isinstance(one, NumericEncoder)
        for value, share in one.absent.items()
    ]
    if not found:
        return []
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return [
        f"numbers far from all others are read as missing: {', '.join(found[:_NAMED])}{more}; "
        "sentinels: false in a field keeps them as numbers."
    ]
