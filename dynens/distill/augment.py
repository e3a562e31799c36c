"""Rows without a click label, which the teacher labels afterwards: made up, or logged without one.

A *unit* is what must change together: all encoded columns of one raw column. Values are taken from
another row's same unit, so that every made-up value has occurred; what is made of several features
(a pair of categories) is then made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynens.batch import (
    MISSING,
    OUT_OF_VOCABULARY,
    EncodedBatch,
    FeatureLayout,
    IntArray,
    field_offsets,
)
from dynens.config.distill import AugmentationConfig
from dynens.data.reading.split_dates import NO_DATES
from dynens.distill.weakness import Weights, drawn
from dynens.schema import FieldSpec

Generator = np.random.Generator
Columns = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Unit:
    """The encoded columns of one raw column, and whose they are (`user`, `item` or `context`)."""

    name: str
    dense: Columns
    ids: Columns
    entity: str


@dataclass(frozen=True)
class RowSpace:
    """What augmentations know of the table.

    Attributes:
        units: the features.
        id_counts: per column of `ids`, the training frequency of every id.
        missing: one row in which every feature is missing.
        write_made: fills in the ids of features that are made of others (pairs, look-ups).
    """

    units: tuple[Unit, ...]
    id_counts: tuple[npt.NDArray[np.int64], ...]
    missing: EncodedBatch
    write_made: Callable[[IntArray], None] | None = None

    @property
    def entities(self) -> tuple[str, ...]:
        return tuple(sorted({unit.entity for unit in self.units}))


def units_of(
    fields: Iterable[FieldSpec],
    columns: Mapping[str, tuple[slice, slice]],
    dates: Mapping[str, Sequence[str]] = NO_DATES,
) -> tuple[Unit, ...]:
    """One unit for every raw column, with all fields that read it: a number and its category, or
    the hour and the weekday of a time, must not contradict each other.

    Args:
        fields: of the schema.
        columns: name of a field → its (dense, ids) columns in encoded rows.
        dates: name of a date → the raw columns that hold its parts, which belong to it.
    """
    date_of = {part: date for date, parts in dates.items() for part in parts}
    readers: dict[str, list[FieldSpec]] = {}
    for spec in fields:
        readers.setdefault(date_of.get(spec.source, spec.source), []).append(spec)
    units = []
    for source, specs in readers.items():
        dense, ids = (
            np.r_[tuple(columns[spec.name][kind] for spec in specs)].astype(np.int64)
            for kind in (0, 1)
        )
        units.append(Unit(source, dense, ids, specs[0].entity))
    return tuple(units)


def row_space(
    layout: FeatureLayout,
    units: tuple[Unit, ...],
    id_counts: npt.NDArray[np.int64],
    missing: EncodedBatch,
    write_made: Callable[[IntArray], None] | None = None,
) -> RowSpace:
    """What augmentations know of a table of this layout.

    Args:
        layout: the encoded row.
        units: its columns by feature.
        id_counts: flat table of training frequencies (one padding row before every field).
        missing: one row in which every feature is missing.
        write_made: see `RowSpace`.
    """
    counts: list[npt.NDArray[np.int64]] = []
    for field, start in zip(layout.fields, field_offsets(layout.fields), strict=True):
        counts.extend([id_counts[start : start + field.num_embeddings]] * field.width)
    return RowSpace(units, tuple(counts), missing, write_made)


class Maker:
    """Makes rows of one batch: copies of `base` with units replaced from `donor`."""

    def __init__(self, base: EncodedBatch, donor: EncodedBatch, space: RowSpace) -> None:
        self.dense = np.array(base.dense)
        self.ids = np.array(base.ids)
        self.donor = donor
        self.space = space

    def copy_unit(self, unit: Unit, rows: npt.NDArray[np.bool_]) -> None:
        """Take `unit` of the flagged rows from the donor."""
        for ours, theirs, columns in (
            (self.dense, self.donor.dense, unit.dense),
            (self.ids, self.donor.ids, unit.ids),
        ):
            for column in columns:
                np.copyto(ours[:, column], theirs[:, column], where=rows)


Augmentation = Callable[[Maker, AugmentationConfig, Generator], None]


def field_swap(maker: Maker, config: AugmentationConfig, generator: Generator) -> None:
    """Every feature, independently, comes from another row with the given probability."""
    for unit in maker.space.units:
        maker.copy_unit(unit, generator.random(len(maker.ids)) < config.probability)


def entity_swap(maker: Maker, config: AugmentationConfig, generator: Generator) -> None:
    """One entity as a whole (a real user, a real item) comes from another row.

    A table of one entity has nothing to recombine that way: its features are swapped one by one.
    """
    entities = maker.space.entities
    if len(entities) < 2:
        field_swap(maker, config, generator)
        return
    chosen = generator.integers(0, len(entities), len(maker.ids))
    for unit in maker.space.units:
        maker.copy_unit(unit, chosen == entities.index(unit.entity))


def cutmix(maker: Maker, config: AugmentationConfig, generator: Generator) -> None:
    """A random share λ ~ U(0, 1) of the features comes from one other row.

    References:
        after Yun et al., "CutMix", ICCV 2019, with features in place of image regions.
    """
    share = generator.random(len(maker.ids))
    for unit in maker.space.units:
        maker.copy_unit(unit, generator.random(len(maker.ids)) < share)


def field_mask(maker: Maker, config: AugmentationConfig, generator: Generator) -> None:
    """Features become missing, as encoders write it."""
    missing = maker.space.missing
    for unit in maker.space.units:
        rows = generator.random(len(maker.ids)) < config.probability
        for column in unit.dense:
            maker.dense[rows, column] = missing.dense[0, column]
        for column in unit.ids:
            maker.ids[rows, column] = missing.ids[0, column]


def feature_noise(maker: Maker, config: AugmentationConfig, generator: Generator) -> None:
    """Gaussian noise of standard deviation `probability` × each dense column's own."""
    scale = config.probability * maker.donor.dense.std(axis=0, keepdims=True)
    maker.dense += (generator.standard_normal(maker.dense.shape) * scale).astype(np.float32)


def id_dropout(maker: Maker, config: AugmentationConfig, generator: Generator) -> None:
    """Ids become unknown (id 0) with probability p / (1 + log(1 + count)): rare ones more often."""
    for column, counts in enumerate(maker.space.id_counts):
        ids = maker.ids[:, column]
        chance = config.probability / (1.0 + np.log1p(counts[np.maximum(ids, 0)]))
        drop = (ids > MISSING) & (generator.random(len(ids)) < chance)
        ids[drop] = OUT_OF_VOCABULARY


def unlabelled(maker: Maker, config: AugmentationConfig, generator: Generator) -> None:
    """A row that was logged without a label, as it is."""
    del maker, config, generator


AUGMENTATIONS: dict[str, Augmentation] = {
    "field_swap": field_swap,
    "entity_swap": entity_swap,
    "cutmix": cutmix,
    "field_mask": field_mask,
    "feature_noise": feature_noise,
    "id_dropout": id_dropout,
    "unlabelled": unlabelled,
}


def make_rows(
    table: EncodedBatch,
    num_rows: int,
    policies: Sequence[AugmentationConfig],
    space: RowSpace,
    generator: Generator,
    weights: Weights | None = None,
    without_label: EncodedBatch | None = None,
    rounds: int = 1,
) -> EncodedBatch:
    """`num_rows` unlabelled rows, most of them made from rows of `table`.

    Every policy makes its share of the rows; the values of a made-up row all occur in `table`
    (except noise, and what is made of several values). With `weights`, a running sum over the
    table's rows, made-up rows start from rows drawn in proportion; what is put into them comes from
    any row. `without_label` are the rows of the policy `unlabelled`. In every further round each
    made-up row goes through one more policy, drawn by their shares.
    """
    changing = [policy for policy in policies if policy.kind != "unlabelled"]
    logged = 0 if without_label is None else len(without_label)
    most = {"unlabelled": min(logged / len(table), 1.0)}
    shares = np.array([policy.share * most.get(policy.kind, 1.0) for policy in policies])
    counts = generator.multinomial(num_rows, shares / shares.sum())
    parts = []
    for policy, count in zip(policies, counts, strict=True):
        if count == 0:
            continue
        if policy.kind == "unlabelled" and without_label is not None:
            base = _rows(without_label, generator.integers(0, logged, count))
        else:
            base = _rows(table, drawn(weights, len(table), count, generator))
        made = [_changed(base, table, policy, space, generator)]
        for _ in range(rounds - 1 if policy.kind != "unlabelled" else 0):
            made = _changed_again(_joined(made), table, changing, space, generator)
        parts += made
    return _joined(parts)


def _changed(
    base: EncodedBatch,
    table: EncodedBatch,
    policy: AugmentationConfig,
    space: RowSpace,
    generator: Generator,
) -> EncodedBatch:
    """The rows of `base` as a policy changes them, with values of any rows of the table."""
    donor = _rows(table, generator.integers(0, len(table), len(base)))
    maker = Maker(base, donor, space)
    AUGMENTATIONS[policy.kind](maker, policy, generator)
    if space.write_made is not None:
        space.write_made(maker.ids)
    return EncodedBatch(maker.dense, maker.ids)


def _changed_again(
    base: EncodedBatch,
    table: EncodedBatch,
    policies: Sequence[AugmentationConfig],
    space: RowSpace,
    generator: Generator,
) -> list[EncodedBatch]:
    """The rows of `base` in another order, each changed by one of the policies."""
    base = base.take(generator.permutation(len(base)))
    shares = np.array([policy.share for policy in policies])
    ends = np.cumsum(generator.multinomial(len(base), shares / shares.sum()))
    bounds = zip(policies, [0, *ends[:-1]], ends, strict=True)
    return [
        _changed(base.take(slice(start, end)), table, policy, space, generator)
        for policy, start, end in bounds
        if end > start
    ]


def _joined(parts: Sequence[EncodedBatch]) -> EncodedBatch:
    if len(parts) == 1:
        return parts[0]
    return EncodedBatch(
        np.concatenate([part.dense for part in parts]),
        np.concatenate([part.ids for part in parts]),
    )


def _rows(table: EncodedBatch, index: npt.NDArray[np.int64]) -> EncodedBatch:
    return EncodedBatch(table.dense.take(index, axis=0), table.ids.take(index, axis=0))
