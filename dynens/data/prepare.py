"""`prepare`: raw files to encoded, memory-mapped splits with encoders and statistics."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc as ipc

from dynens.batch import EncodedBatch, FeatureLayout, IntArray
from dynens.data.encoders import RowEncoder
from dynens.data.entities import EncodedEntity, RawEntity, load_entities
from dynens.data.fitting import field_fitter
from dynens.data.infer import with_fields
from dynens.data.prepared import PreparedData, open_prepared, weights_of
from dynens.data.shards import ShardWriter
from dynens.data.sources import expand
from dynens.data.splits import SPLITS, TEST, TRAIN, split_kind, split_rows
from dynens.data.staging import Staged, stage
from dynens.data.statistics import (
    NUM_FOLDS,
    CountTables,
    StatTables,
    fold_of,
    num_periods,
    part_tables,
    period_bounds,
    period_of,
    stat_table,
    train_stats,
)
from dynens.errors import DataError
from dynens.schema import DatasetConfig, FeatureSchema

__all__ = ["PreparedData", "fingerprint", "open_prepared", "prepare"]

FORMAT = 1
RAW_ROWS = 100_000
_STATS_CHUNK = 262_144
_HASH_BYTES = 8 << 20

Progress = Callable[[str], None]


def prepare(
    dataset: DatasetConfig,
    out_dir: Path,
    *,
    seed: int,
    progress: Progress | None = None,
) -> PreparedData:
    """Encode a dataset into `out_dir`, or reuse what is there if nothing has changed.

    Args:
        dataset: files, schema and split.
        out_dir: written under a temporary name and renamed at the end.
        seed: of random splits and folds.
        progress: told about each step.

    Raises:
        DataError: a file, the label or the split is bad, or the folder cannot be written.
        SchemaError: the schema does not fit the files.
    """
    say = progress or (lambda _: None)
    print_ = fingerprint(dataset, seed)
    manifest = out_dir / "prepared.json"
    if manifest.is_file():
        if json.loads(manifest.read_text(encoding="utf-8"))["fingerprint"] == print_:
            say("encoded data found, nothing has changed")
            return open_prepared(out_dir)
    elif out_dir.is_dir() and any(out_dir.iterdir()):
        raise DataError(f"{out_dir} exists and holds other files; give a new or empty folder.")
    temporary = out_dir.with_name(f".{out_dir.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        _Preparation(dataset, temporary, seed, print_, say).run()
        if out_dir.exists():
            shutil.rmtree(out_dir)
        temporary.rename(out_dir)
    except OSError as e:
        raise DataError(f"{out_dir} cannot be written ({e.strerror or e}).") from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_prepared(out_dir)


def fingerprint(dataset: DatasetConfig, seed: int) -> str:
    """A hash of everything the encoded data depends on, the files' contents included."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{FORMAT} {seed} {dataset.model_dump_json()}".encode())
    names = [*dataset.files, *dataset.valid_files, *dataset.test_files]
    names += [name for entity in dataset.entities for name in entity.files]
    for path in expand(names):
        try:
            with path.open("rb") as file:
                while block := file.read(_HASH_BYTES):
                    digest.update(block)
        except OSError as e:
            raise DataError(f"{path} cannot be read ({e.strerror}); give a readable table.") from e
        digest.update(b"\0")
    return digest.hexdigest()


@dataclass
class _Rows:
    """Per-row facts of the staged rows, all (N,)."""

    labels: npt.NDArray[np.float32]
    split: npt.NDArray[np.int8]
    weights: npt.NDArray[np.float32] | None
    groups: npt.NDArray[np.int64] | None
    parts: IntArray  # fold or period of training rows; 0 elsewhere


class _Preparation:
    """One run of `prepare`; the steps in order are in `run`."""

    def __init__(
        self, dataset: DatasetConfig, directory: Path, seed: int, print_: str, say: Progress
    ) -> None:
        self.dataset, self.directory = dataset, directory
        self.seed, self.fingerprint, self.say = seed, print_, say

    def run(self) -> None:
        self.entities = load_entities(self.dataset)
        self.dataset = with_fields(self.dataset, self.entities)
        self.features: FeatureSchema = self.dataset.features
        self.say("reading")
        staged = stage(self.dataset, self.entities, self.directory / "staged.arrow")
        labels = staged.reader.labels_by_code()[staged.label_codes]
        self.features = self.features.model_copy(update={"label": staged.reader.resolved()})
        self.split_by = split_kind(self.dataset.split, staged.given, staged.times)
        self.say(f"splitting: {self.split_by}")
        split = split_rows(
            self.dataset.split,
            labels,
            staged.given,
            self.seed,
            times=staged.times,
            time_format=self.features.time_format,
            groups=staged.groups,
        )
        self.say(f"fitting encoders on {int((split == TRAIN).sum()):,} of {len(split):,} rows")
        encoder = self._fit(staged, split)
        self.say("encoding")
        self._encode(staged, labels, split, encoder)
        staged.path.unlink()

    def _fit(self, staged: Staged, split: npt.NDArray[np.int8]) -> RowEncoder:
        fitters = [field_fitter(spec) for spec in self.features.fields]
        joined = sorted({spec.source for spec in self.features.fields})
        for rows, table in staged.chunks():
            mask = split[rows] == TRAIN
            if not mask.all():
                table = table.filter(pa.array(mask))
            for entity in self.entities:
                table = entity.join(table, joined)
            for fitter in fitters:
                fitter.add(table[fitter.spec.source])
        encoders = [fitter.finish() for fitter in fitters]
        bare = RowEncoder(encoders, (), self.features.user_key, self.features.item_key)
        encoded = [encode_entity(bare, entity, staged.columns) for entity in self.entities]
        return RowEncoder(encoders, encoded, bare.user_key, bare.item_key)

    def _encode(
        self,
        staged: Staged,
        labels: npt.NDArray[np.float32],
        split: npt.NDArray[np.int8],
        encoder: RowEncoder,
    ) -> None:
        rows = _Rows(
            labels,
            split,
            weights_of(labels, staged.weights, self.features.negative_sampling_rate),
            staged.groups,
            np.zeros(len(labels), np.int32),
        )
        past, num_parts = self._cut_parts(staged, rows, encoder.layout)
        counts = CountTables(encoder.layout, num_parts)
        writers = [ShardWriter(self.directory / f"{name}.arrow") for name in SPLITS]
        raw: list[pa.Table] = []
        for at, table in staged.chunks():
            batch = encoder.encode_table(table)
            self._write_chunk(batch, at, rows, writers, counts)
            if sum(t.num_rows for t in raw) < RAW_ROWS:
                raw.append(self._joined(table.filter(pa.array(split[at] == TEST))))
        stats = self._statistics(encoder.layout, counts)
        self._write_train_stats(writers[TRAIN], rows, encoder.layout, counts, past)
        for writer in writers:
            writer.finish()
        encoder.save(self.directory / "encoder")
        stats.save(self.directory / "statistics")
        np.save(self.directory / "id_frequency.npy", counts.total()[0].astype(np.int64))
        self._save_raw(raw)
        self._save_manifest(staged, [writer.num_rows for writer in writers])

    def _cut_parts(self, staged: Staged, rows: _Rows, layout: FeatureLayout) -> tuple[bool, int]:
        """Give every training row its fold or period: (whether periods, how many parts)."""
        train = rows.split == TRAIN
        wanted = self.dataset.statistics
        by_time = self.split_by == "time"
        if staged.times is not None and (wanted == "past" or (wanted == "auto" and by_time)):
            bounds = period_bounds(staged.times[train], num_periods(layout))
            if len(bounds):
                rows.parts[train] = period_of(staged.times[train], bounds)
                return True, len(bounds) + 1
        rows.parts[train] = fold_of(np.arange(int(train.sum())), self.seed)
        return False, NUM_FOLDS

    def _write_chunk(
        self,
        batch: EncodedBatch,
        at: slice,
        rows: _Rows,
        writers: Sequence[ShardWriter],
        counts: CountTables,
    ) -> None:
        split = rows.split[at]
        for code, writer in enumerate(writers):
            mine = split == code
            if not mine.any():
                continue
            ids, labels = batch.ids[mine], rows.labels[at][mine]
            writer.append(
                ids=ids,
                dense=batch.dense[mine],
                labels=labels,
                sample_weight=None if rows.weights is None else rows.weights[at][mine],
                groups=None if rows.groups is None else rows.groups[at][mine],
            )
            if code == TRAIN:
                counts.add(ids, labels, rows.parts[at][mine])

    def _statistics(self, layout: FeatureLayout, counts: CountTables) -> StatTables:
        seen, positives, num_rows, num_positives = counts.total()
        table = stat_table(layout, seen, positives, num_rows, num_positives, num_rows)
        return StatTables(layout, table)

    def _write_train_stats(
        self,
        writer: ShardWriter,
        rows: _Rows,
        layout: FeatureLayout,
        counts: CountTables,
        past: bool,
    ) -> None:
        tables = part_tables(layout, counts, past)
        ids = writer.view("ids", layout.ids_width)
        parts = rows.parts[rows.split == TRAIN]
        for start in range(0, len(ids), _STATS_CHUNK):
            chunk = slice(start, start + _STATS_CHUNK)
            values = train_stats(layout, tables, np.asarray(ids[chunk]), parts[chunk])
            writer.append_column("stats", values)

    def _joined(self, table: pa.Table) -> pa.Table:
        for entity in self.entities:
            wanted = [spec.source for spec in self.features.fields]
            table = entity.join(table, sorted(set(wanted)))
        return table

    def _save_raw(self, tables: Sequence[pa.Table]) -> None:
        table = pa.concat_tables(tables).slice(0, RAW_ROWS).combine_chunks()
        options = ipc.IpcWriteOptions(compression="zstd")
        with ipc.new_file(
            str(self.directory / "raw_test.arrow"), table.schema, options=options
        ) as writer:
            writer.write_table(table)

    def _save_manifest(self, staged: Staged, rows: Sequence[int]) -> None:
        resolved = self.dataset.model_copy(update={"features": self.features})
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "name": self.dataset.name,
            "seed": self.seed,
            "rows": dict(zip(SPLITS, rows, strict=True)),
            "report": {**staged.report.to_dict(), "split_by": self.split_by},
            "dataset": resolved.model_dump(mode="json", exclude_defaults=True),
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        (self.directory / "prepared.json").write_text(text, encoding="utf-8")


def encode_entity(
    encoder: RowEncoder, entity: RawEntity, interaction_columns: Sequence[str]
) -> EncodedEntity:
    """Encode an entity's table, fields read from the interactions themselves left out."""
    dense_at, ids_at = [], []
    columns = set(entity.columns.column_names) - set(interaction_columns)
    for item, (dense_slice, ids_slice) in zip(encoder.encoders, encoder._slices, strict=True):
        if item.spec.source in columns:
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
