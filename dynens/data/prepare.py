"""`prepare`: raw files to encoded, memory-mapped splits with encoders and statistics."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc as ipc

from dynens.batch import FeatureLayout, IntArray
from dynens.data.agreement import unified_schema
from dynens.data.cache import Progress, remove_abandoned
from dynens.data.columns import unusable_type
from dynens.data.copies import copies_in, of_copies
from dynens.data.encoding.encoders import RowEncoder
from dynens.data.encoding.entities import load_entities
from dynens.data.encoding.fitters import look_at_items, tie_fields
from dynens.data.encoding.fitting import FieldFitter
from dynens.data.fingerprint import FORMAT, fingerprint
from dynens.data.grades import grades_of
from dynens.data.inference.infer import with_fields
from dynens.data.parts import RAW_ROWS, PartRows, encode_entity, encode_part, fit_part
from dynens.data.prepared import (
    ALSO_VALID,
    VALID_ROWS,
    PreparedData,
    open_prepared,
    weights_of,
)
from dynens.data.reading.sources import expand
from dynens.data.shards import ShardWriter
from dynens.data.splits import (
    PARTS,
    SPLITS,
    TEST,
    TRAIN,
    UNLABELLED,
    VALID,
    first_alike,
    split_kind,
    split_rows,
)
from dynens.data.staging import StagedPart, StagedRows, merge_parts, stage_part
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
from dynens.data.strangers import of_keys, of_sentinels, of_values
from dynens.errors import DataError
from dynens.run import replace_directory
from dynens.schema import DatasetConfig, FeatureSchema

_STATS_CHUNK = 262_144

Call = Callable[[], Any]
MapFiles = Callable[[Sequence[Call]], Iterable[Any]]
"""Runs calls that do not depend on each other and gives their results in order."""


def one_by_one(calls: Sequence[Call]) -> Iterator[Any]:
    """Run the calls in turn, each when its result is asked for."""
    for call in calls:
        yield call()


def prepare(
    dataset: DatasetConfig,
    out_dir: Path,
    *,
    seed: int,
    progress: Progress | None = None,
    map_files: MapFiles | None = None,
    train_on_valid: bool = False,
) -> PreparedData:
    """Encode a dataset into `out_dir`, or reuse what is there if nothing has changed.

    Args:
        dataset: files, schema and split.
        out_dir: written under a temporary name and renamed at the end.
        seed: of random splits and folds.
        progress: told about each step.
        map_files: runs the work on single files, here one after the other; whatever runs it, the
            result is the same.
        train_on_valid: whether validation rows train as well.

    Raises:
        DataError: a file, the label or the split is bad, or the folder cannot be written.
        SchemaError: the schema does not fit the files.
    """
    say = progress or (lambda _: None)
    identity = fingerprint(dataset, seed) + (ALSO_VALID if train_on_valid else "")
    manifest = out_dir / "prepared.json"
    if manifest.is_file():
        if _fingerprint_in(manifest) == identity:
            say("encoded data found, nothing has changed")
            return open_prepared(out_dir)
    elif out_dir.is_dir() and any(out_dir.iterdir()):
        raise DataError(f"{out_dir} exists and holds other files; give a new or empty folder.")
    remove_abandoned(out_dir)
    temporary = out_dir.with_name(f".{out_dir.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        preparation = _Preparation(dataset, temporary, seed, identity, say, map_files or one_by_one)
        preparation.run(train_on_valid)
        replace_directory(temporary, out_dir)
    except pa.ArrowException as e:
        raise DataError(unusable_type(e)) from e
    except OSError as e:
        raise DataError(f"{out_dir} cannot be written ({e.strerror or e}).") from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_prepared(out_dir)


def _fingerprint_in(manifest: Path) -> str | None:
    try:
        found: str = json.loads(manifest.read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # damaged: prepared anew
    return found


class _Preparation:
    """One run of `prepare`; the steps in order are in `run`."""

    def __init__(
        self,
        dataset: DatasetConfig,
        directory: Path,
        seed: int,
        identity: str,
        say: Progress,
        map_files: MapFiles,
    ) -> None:
        self.dataset, self.directory = dataset, directory
        self.seed, self.fingerprint, self.say = seed, identity, say
        self.map_files = map_files

    def run(self, train_on_valid: bool) -> None:
        self.entities = load_entities(self.dataset)
        inferred = with_fields(self.dataset, self.entities)
        self.dataset, self.warnings = inferred.dataset, inferred.warnings
        self.say("reading")
        parts = self._stage()
        rows = merge_parts(parts)
        self.features: FeatureSchema = self.dataset.features.model_copy(
            update={"label": rows.reader.resolved()}
        )
        self._check_given(rows)
        self.split_by = split_kind(self.dataset.split, rows.given, rows.times, rows.labels)
        is_cut = not (self.dataset.valid_files and self.dataset.test_files)
        if rows.times is not None and is_cut:
            self._tell_of_the_cut(rows.times[(rows.given == TRAIN) & ~np.isnan(rows.labels)])
        self.say(f"splitting: {self.split_by}")
        self.copies = None
        if self.split_by == "random":
            self.copies = copies_in([part.path for part in parts])
            self.warnings += [] if self.copies is None else of_copies(self.copies, rows.given)
        cut = partial(
            split_rows,
            self.dataset.split,
            rows.labels,
            rows.given,
            self.seed,
            times=rows.times,
            time_format=self.features.time_format,
            groups=rows.groups,
            copies=self.copies,
        )
        split = cut()
        if train_on_valid:
            is_valid, split = split == VALID, cut(train_on_valid=True)
            np.save(self.directory / VALID_ROWS, np.flatnonzero(is_valid[split == TRAIN]))
        self.say(f"fitting encoders on {int((split == TRAIN).sum()):,} of {len(split):,} rows")
        encoder = self._fit(parts, rows, split)
        self.say("encoding")
        self._encode(parts, rows, split, encoder)

    def _tell_of_the_cut(self, times: npt.NDArray[np.float64]) -> None:
        """Warn where rows with these times are not cut by them."""
        column = self.features.timestamp
        if self.split_by == "random" and self.dataset.split.by == "auto":
            self.warnings.append(
                f"rows are cut at random: by {column} a part would be empty or hold one class "
                "only, a part given as a file is no later, or too many rows have no time"
            )
        untimed = int(np.isnan(times).sum())
        if self.split_by == "time" and untimed:
            self.warnings.append(
                f"{untimed} rows have no time in {column}; whenever they were, they are trained on"
            )

    def _stage(self) -> list[StagedPart]:
        groups = enumerate(self.dataset.parts)
        files = [(given, file) for given, names in groups for file in expand(names)]
        _refuse_twice(files)
        paths = [file for _, file in files]
        schema, warnings = unified_schema(paths, self.dataset, self.entities)
        self.warnings += warnings
        self.interaction_columns = schema.names
        folder = self.directory / "staged"
        folder.mkdir()
        calls = [
            partial(stage_part, self.dataset, schema, file, given, folder / f"{i}.arrow")
            for i, (given, file) in enumerate(files)
        ]
        return list(self.map_files(calls))

    def _fit(
        self, parts: Sequence[StagedPart], rows: StagedRows, split: npt.NDArray[np.int8]
    ) -> RowEncoder:
        calls, first_row = [], 0
        for part, at in zip(parts, rows.bounds, strict=True):
            train = split[at] == TRAIN
            calls.append(
                partial(fit_part, self.features.fields, self.entities, part.path, train, first_row)
            )
            first_row += int(train.sum())
        fitters: list[FieldFitter] = []
        for fitted in self.map_files(calls):
            for mine, other in zip(fitters, fitted, strict=bool(fitters)):
                mine.merge(other)
            fitters = fitters or fitted
        tie_fields(fitters)
        look_at_items(fitters, self.entities)
        encoders = [fitter.finish() for fitter in fitters]
        self.warnings += [text for fitter in fitters if (text := fitter.warning())]
        bare = RowEncoder(encoders, (), self.features.user_key, self.features.item_key)
        encoded = [encode_entity(bare, e, self.interaction_columns) for e in self.entities]
        dates = self.dataset.source.dates
        return RowEncoder(encoders, encoded, bare.user_key, bare.item_key, dates)

    def _encode(
        self,
        parts: Sequence[StagedPart],
        rows: StagedRows,
        split: npt.NDArray[np.int8],
        encoder: RowEncoder,
    ) -> None:
        rate = self.features.negative_sampling_rate
        weights = weights_of(rows.labels, rows.weights, rate)
        grades = None
        if rows.outcomes is not None:
            grades = grades_of(rows.outcomes, rows.labels, split == TRAIN, split == UNLABELLED)
        calls = []
        for i, (part, at) in enumerate(zip(parts, rows.bounds, strict=True)):
            part_rows = PartRows(
                part.path,
                rows.labels[at],
                split[at],
                None if weights is None else weights[at],
                None if grades is None else grades[at],
                None if rows.soft_labels is None else rows.soft_labels[at],
                None if rows.groups is None else rows.groups[at],
            )
            folder = self.directory / "parts" / str(i)
            calls.append(partial(encode_part, encoder, self.entities, part_rows, folder))
        shards = [ShardWriter(self.directory / f"{name}.arrow") for name in PARTS]
        raw: list[pa.Table] = []
        strangers: Counter[str] = Counter()
        unseen = np.zeros((len(PARTS), encoder.layout.ids_width), np.int64)
        for encoded in self.map_files(calls):
            for shard, other in zip(shards, encoded.shards, strict=True):
                shard.take_over(other.pause())
            raw += encoded.raw
            strangers += encoded.strangers
            unseen += encoded.unseen
        for name in ("staged", "parts"):
            shutil.rmtree(self.directory / name)
        counts = self._write_train_stats(shards[TRAIN], rows, split == TRAIN, encoder.layout)
        for shard in shards:
            if shard.num_rows:
                shard.finish()
        self.warnings += of_keys(self.entities, strangers, len(split))
        apart = self.features.group if self.split_by == "group" else None
        num_rows = [shard.num_rows for shard in shards]
        self.warnings += of_values(encoder, unseen[:UNLABELLED], num_rows[:UNLABELLED], apart)
        self.warnings += of_sentinels(encoder)
        self._save(encoder, counts, raw, rows, num_rows)

    def _check_given(self, rows: StagedRows) -> None:
        """Refuse files for validation or test that could not be that, as they have no labels."""
        for part, files in ((VALID, self.dataset.valid_files), (TEST, self.dataset.test_files)):
            if files and not (rows.given == part).any():
                raise DataError(
                    f"no row of {files[0]} has a label, so that it cannot be the {SPLITS[part]} "
                    "part; give a file with labels, or none, and rows are cut from train."
                )

    def _periods(
        self, rows: StagedRows, train: npt.NDArray[np.bool_], layout: FeatureLayout
    ) -> tuple[bool, IntArray, int]:
        """(whether statistics look at the past, fold or period of training rows, how many)."""
        wanted = self.dataset.statistics
        past = wanted == "past" or (wanted == "auto" and self.split_by == "time")
        if past and rows.times is not None:
            bounds = period_bounds(rows.times[train], num_periods(layout))
            if len(bounds):
                return True, period_of(rows.times[train], bounds), len(bounds) + 1
        numbers = np.arange(int(train.sum()))
        if self.copies is not None:
            numbers = first_alike(self.copies[train])
        return False, fold_of(numbers, self.seed), NUM_FOLDS

    def _write_train_stats(
        self,
        shard: ShardWriter,
        rows: StagedRows,
        train: npt.NDArray[np.bool_],
        layout: FeatureLayout,
    ) -> CountTables:
        """Count the training rows that the shard holds; write what each may see of the others."""
        past, periods, num_parts = self._periods(rows, train, layout)
        labels, ids = rows.labels[train], shard.view("ids", layout.ids_width)
        chunks = [slice(i, i + _STATS_CHUNK) for i in range(0, len(ids), _STATS_CHUNK)]
        counts = CountTables(layout, num_parts)
        for at in chunks:
            counts.add(np.asarray(ids[at]), labels[at], periods[at])
        tables = part_tables(layout, counts, past)
        for at in chunks:
            values = train_stats(layout, tables, np.asarray(ids[at]), periods[at])
            shard.append_column("stats", values)
        return counts

    def _save(
        self,
        encoder: RowEncoder,
        counts: CountTables,
        raw: Sequence[pa.Table],
        rows: StagedRows,
        part_rows: Sequence[int],
    ) -> None:
        encoder.save(self.directory / "encoder")
        seen, positives, num_rows, num_positives = counts.total()
        table = stat_table(encoder.layout, seen, positives, num_rows, num_positives, num_rows)
        StatTables(encoder.layout, table).save(self.directory / "statistics")
        np.save(self.directory / "id_frequency.npy", seen.astype(np.int64))
        test_rows = pa.concat_tables(raw).slice(0, RAW_ROWS).combine_chunks()
        options = ipc.IpcWriteOptions(compression="zstd")
        path = str(self.directory / "raw_test.arrow")
        with ipc.new_file(path, test_rows.schema, options=options) as writer:
            writer.write_table(test_rows)
        resolved = self.dataset.model_copy(update={"features": self.features})
        rows_of = dict(zip(SPLITS, part_rows[:UNLABELLED], strict=True))
        also_train = self.directory / VALID_ROWS
        if also_train.exists():
            rows_of["valid"] = len(np.load(also_train))
            rows_of["train"] -= rows_of["valid"]
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "name": self.dataset.name,
            "seed": self.seed,
            "rows": rows_of,
            "report": {
                **rows.report.to_dict(),
                "rows_unlabelled": part_rows[UNLABELLED],
                "split_by": self.split_by,
                "warnings": self.warnings + rows.report.warnings(),
            },
            "dataset": resolved.model_dump(mode="json", exclude_defaults=True),
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        (self.directory / "prepared.json").write_text(text, encoding="utf-8")


def _refuse_twice(files: Sequence[tuple[int, Path]]) -> None:
    """A file in two parts would judge models by rows they were trained on."""
    part_of: dict[Path, int] = {}
    for given, file in files:
        part = part_of.setdefault(file.resolve(), given)
        if part != given:
            raise DataError(
                f"{file} is given for {PARTS[part]} and for {PARTS[given]}; leave out the latter "
                "(rows for it are then cut from train)."
            )
