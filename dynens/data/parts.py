"""Fitting and encoding one staged file; the results of all files merge to those of one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.batch import OUT_OF_VOCABULARY, EncodedBatch, FloatArray
from dynens.data.encoding.encoders import RowEncoder
from dynens.data.encoding.entities import EncodedEntity, RawEntity
from dynens.data.encoding.fitters import field_fitter
from dynens.data.encoding.fitting import FieldFitter
from dynens.data.encoding.pairs import sources_of, values_of
from dynens.data.shards import ShardWriter
from dynens.data.splits import PARTS, TEST, TRAIN, UNLABELLED
from dynens.data.staging import staged_chunks
from dynens.schema import FieldSpec

RAW_ROWS = 100_000


@dataclass
class PartRows:
    """What is known of one staged file's rows, all (N,).

    Attributes:
        path: the staged file.
        labels: float32, NaN where there is none.
        split: int8.
        weights: float32, or None.
        grades: float32, as `grades_of` has them; or None.
        soft_labels: float32, or None.
        groups: int64, or None.
    """

    path: Path
    labels: FloatArray
    split: npt.NDArray[np.int8]
    weights: FloatArray | None
    grades: FloatArray | None
    soft_labels: FloatArray | None
    groups: npt.NDArray[np.int64] | None


@dataclass
class EncodedPart:
    """What encoding one file gives besides the rows on disk.

    Attributes:
        shards: the writers of `PARTS`, in order, their columns still in pieces.
        raw: the first raw test rows, entity columns joined.
        unseen: (parts, ids_width) rows whose value has no id.
        strangers: rows by entity whose key its table lacks.
    """

    shards: list[ShardWriter]
    raw: list[pa.Table]
    unseen: npt.NDArray[np.int64]
    strangers: Counter[str] = field(default_factory=Counter)


def encode_entity(
    encoder: RowEncoder, entity: RawEntity, interaction_columns: Sequence[str]
) -> EncodedEntity:
    """Encode an entity's table, fields read from the interactions themselves left out."""
    dense_at, ids_at = [], []
    columns = set(entity.columns.column_names) - set(interaction_columns)
    for position, item in enumerate(encoder.encoders):
        if item.spec.source in columns:
            dense_slice, ids_slice = encoder.columns_at(position)
            dense_at += list(range(dense_slice.start, dense_slice.stop))
            ids_at += list(range(ids_slice.start, ids_slice.stop))
    used = [e.spec.source for e in encoder.encoders if e.spec.source in columns]
    table = entity.columns.select(sorted(set(used)))
    if table.num_columns:
        rows = encoder.encode_table(table)
        dense, ids = rows.dense, rows.ids
    else:
        dense, ids = encoder.empty(len(entity.keys))
    unknown_dense, unknown_ids = encoder.empty(1)
    return EncodedEntity(
        entity=entity.entity,
        key=entity.key,
        keys=entity.keys,
        dense=np.concatenate([dense, unknown_dense])[:, dense_at],
        ids=np.concatenate([ids, unknown_ids])[:, ids_at],
        dense_columns=np.array(dense_at, np.int64),
        ids_columns=np.array(ids_at, np.int64),
    )


def fit_part(
    specs: Sequence[FieldSpec],
    entities: Sequence[RawEntity],
    path: Path,
    train: npt.NDArray[np.bool_],
    first_row: int,
) -> list[FieldFitter]:
    """Show the training rows of one staged file to a fitter per field.

    Args:
        specs: the fields.
        entities: tables to join.
        path: the staged file.
        train: (N,) which of its rows train.
        first_row: training rows of the files before.
    """
    fitters = [field_fitter(spec, first_row) for spec in specs]
    by_name = {spec.name: spec for spec in specs}
    joined = sources_of(specs)
    for rows, table in staged_chunks(path):
        mask = train[rows]
        if not mask.all():
            table = table.filter(pa.array(mask))
        for entity in entities:
            table = entity.join(table, joined)
        for fitter in fitters:
            fitter.add(values_of(table, fitter.spec, by_name))
    return fitters


def encode_part(
    encoder: RowEncoder,
    entities: Sequence[RawEntity],
    rows: PartRows,
    directory: Path,
) -> EncodedPart:
    """Encode one staged file.

    Args:
        encoder: fitted.
        entities: tables joined to the raw test rows that are kept.
        rows: the file's rows.
        directory: where the splits' columns go.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shards = [ShardWriter(directory / f"{name}.arrow") for name in PARTS]
    unseen = np.zeros((len(PARTS), encoder.layout.ids_width), np.int64)
    result = EncodedPart(shards, [], unseen)
    joined = sources_of([item.spec for item in encoder.encoders])
    kept = 0
    for at, table in staged_chunks(rows.path):
        _write_chunk(encoder.encode_table(table), at, rows, result)
        for entity in entities:
            if entity.key in table.column_names:
                result.strangers[entity.entity] += entity.rows_of(table[entity.key]).null_count
        if kept < RAW_ROWS:
            table = table.filter(pa.array(rows.split[at] == TEST)).slice(0, RAW_ROWS - kept)
            for entity in entities:
                table = entity.join(table, joined)
            kept += table.num_rows
            result.raw.append(table)
    return result


def _write_chunk(batch: EncodedBatch, at: slice, rows: PartRows, result: EncodedPart) -> None:
    for code, shard in enumerate(result.shards):
        mine = rows.split[at] == code
        if not mine.any():
            continue
        ids, labels = batch.ids[mine], rows.labels[at][mine]
        result.unseen[code] += (ids == OUT_OF_VOCABULARY).sum(axis=0)
        grades = None
        if rows.grades is not None and code in (TRAIN, UNLABELLED):
            grades = rows.grades[at][mine]
        if code == UNLABELLED:
            shard.append(ids=ids, dense=batch.dense[mine], grades=grades)
            continue
        shard.append(
            ids=ids,
            dense=batch.dense[mine],
            labels=labels,
            sample_weight=None if rows.weights is None else rows.weights[at][mine],
            grades=grades,
            soft_labels=None if rows.soft_labels is None else rows.soft_labels[at][mine],
            groups=None if rows.groups is None else rows.groups[at][mine],
        )
