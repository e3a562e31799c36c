"""Whether the files of one table agree: in columns and types, and in what these hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from dynens.data.columns import ROLES, needed_columns, nowhere, refuse_times
from dynens.data.encoding.entities import RawEntity
from dynens.data.names import folded, is_key_name
from dynens.data.reading.decimals import points_in, with_commas
from dynens.data.reading.labels import no_label_column, outcome_words
from dynens.data.reading.numbers import to_numbers
from dynens.data.reading.sources import expand, file_format, file_schema, read_head
from dynens.data.reading.stacking import common_type
from dynens.data.reading.values import canonical_texts, is_bytes, one_line, plain
from dynens.errors import DataError
from dynens.schema import DatasetConfig, FeatureSchema

_KEYS = ("group", "request_id", "user_key", "item_key")
_HEAD_ROWS, _MIN_KNOWN = 2000, 20
_UNTYPED = pa.binary()  # stands for the columns of text files, which any flat type agrees with


def unified_schema(
    files: Sequence[Path], config: DatasetConfig, entities: Sequence[RawEntity]
) -> tuple[pa.Schema, list[str]]:
    """(the needed interaction columns in types that fit all files, warnings).

    Columns that only fields read may be absent from some of the files, and soft labels too, which
    only training rows need: they are missing there. Files given as unlabelled need only features.

    Raises:
        DataError: a file has no label, lacks another column that others have, or a column changes
            type.
        SchemaError: the schema asks for a column that is nowhere.
    """
    needed = needed_columns(config.features)
    for name in needed.keys() & config.source.dates.keys():
        for part in config.source.dates[name]:
            needed.setdefault(part, f"part of {name}")
    for entity in entities:
        needed.setdefault(entity.key, f"the {entity.entity} table's key")
    types: dict[str, pa.DataType] = {}
    schemas = {file: file_schema(file, config.source, needed) for file in files}
    unlabelled = set(expand(config.unlabelled_files))
    for file, schema in schemas.items():
        if config.features.label.column not in schema.names and file not in unlabelled:
            raise DataError(no_label_column(str(file), config.features.label.column, schema.names))
        unread = config.features.label.outcome_columns() if file in unlabelled else set()
        for name in [n for n in needed if n in schema.names and n not in unread]:
            kind = _plain_type(schema.field(name).type)
            if file_format(file) == "csv":
                kind = _UNTYPED
            types[name] = _common_type(types.get(name, kind), kind, name, file)
    types = {n: pa.string() if kind == _UNTYPED else kind for n, kind in types.items()}
    refuse_times(config.features, types, str(files[0]))
    for name, purpose in needed.items():
        if name not in types and not any(entity.has(name) for entity in entities):
            is_key = any(entity.key == name for entity in entities)
            remedy = f"; if one is that key, name it as key, and {name!r} as key_in_table"
            known = [
                *schemas[files[0]].names,
                *(n for e in entities for n in e.columns.column_names),
            ]
            where = f"{files[0].name} with its tables" if entities else files[0].name
            raise nowhere(name, purpose, where, known, remedy if is_key else "")
    roles = {n for n, use in needed.items() if use in ("the label", "the label rule", *ROLES)}
    labelled = [file for file in schemas if file not in unlabelled]
    others = [file for file in schemas if file in unlabelled]
    warnings = _absences(schemas, labelled, list(types), config.features, entities)
    features = [name for name in types if name not in roles]
    warnings += _absences(schemas, others, features, config.features, entities)
    return pa.schema([pa.field(name, kind) for name, kind in types.items()]), warnings


def _absences(
    schemas: Mapping[Path, pa.Schema],
    files: Sequence[Path],
    names: Sequence[str],
    features: FeatureSchema,
    entities: Sequence[RawEntity],
) -> list[str]:
    """What to tell of columns (of these `names`) that some of the `files` lack.

    Raises:
        DataError: it is more than a few features.
    """
    needed = {getattr(features, role) for role in ROLES} | {*features.label.columns()}
    needed |= {name for name in names for entity in entities if entity.has(name)}
    needed |= {entity.key for entity in entities}
    absent: dict[str, list[Path]] = {}
    for file in files:
        lacking = sorted(set(names) - {*schemas[file].names, features.soft_label})
        for name in lacking:
            _refuse_other_spelling(schemas, file, names, name)
            if name in needed:
                raise DataError(
                    f"{file} lacks the column {name!r} that other files have; add it there, empty "
                    "where it is not known, or exclude it in all of them."
                )
            absent.setdefault(name, []).append(file)
        if 2 * len(lacking) > len(names):
            raise DataError(
                f"{file} lacks {len(lacking)} of the {len(names)} columns that other files have "
                f"({', '.join(lacking[:5])}); give files of one table."
            )
    warnings = []
    for name, without in absent.items():
        more = f" and {len(without) - 1} more lack" if len(without) > 1 else " lacks"
        warnings.append(f"{without[0]}{more} {name!r}, which is missing in those rows")
    return warnings


def _refuse_other_spelling(
    schemas: Mapping[Path, pa.Schema], file: Path, names: Sequence[str], name: str
) -> None:
    """Check that a file that lacks a column does not spell it in another way.

    A column spelled so is another one where it is among the `names` that are read and some file has
    both.

    Raises:
        DataError: it does.
    """
    for other in schemas[file].names:
        if folded(other) != folded(name):
            continue
        if other not in names or not any({other, name} <= {*s.names} for s in schemas.values()):
            raise DataError(
                f"{file} has a column {other!r} where other files have {name!r}; spell them alike."
            )


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType) and kind != pa.uuid():
        return _plain_type(kind.storage_type)
    texts = (pa.uuid(), pa.large_string(), pa.string_view())
    if kind in texts or is_bytes(kind):
        return pa.string()
    return kind


def _common_type(a: pa.DataType, b: pa.DataType, name: str, file: Path) -> pa.DataType:
    if _UNTYPED in (a, b) and not (pa.types.is_nested(a) or pa.types.is_nested(b)):
        return _UNTYPED
    kind = common_type((a, b))
    if kind is not None:
        return kind
    raise DataError(
        f"{file}: column {name!r} changes type between files (from {a} to {b}); "
        "write all files with one type."
    )


def check_types(config: DatasetConfig) -> None:
    """Compare the beginnings of the files, column by column.

    Of the label, and of what is a category by its role or name, numbers are texts like others.

    Raises:
        DataError: another column holds numbers in one file and other texts in another, or files
            have two outcomes, each, but not the same.
    """
    features = config.features
    texts = features.label.columns() | {entity.key for entity in config.entities}
    texts |= {getattr(features, role) for role in _KEYS}
    seen: dict[str, tuple[pa.ChunkedArray, float, Path]] = {}
    outcomes: dict[Path, set[str]] = {}
    unlabelled = expand(config.unlabelled_files)
    for file in expand([name for files in config.parts for name in files]):
        head = read_head([str(file)], config.source, _HEAD_ROWS)
        head = points_in(head, with_commas(head.column_names, config.source))
        if file not in unlabelled and features.label.column in head.column_names:
            outcomes[file] = outcome_words(head[features.label.column])
        for name in head.column_names:
            if name in texts or is_key_name(name):
                continue
            share = _number_share(head[name])
            if share is None:
                continue
            here = head[name], share, file
            there = seen.setdefault(name, here)
            if abs(share - there[1]) > 0.9:
                raise DataError(
                    f"column {name!r} holds {_held(*there)} but {_held(*here)}; "
                    "make the files alike."
                )
    if features.label.positive is None:
        _refuse_other_outcomes(features.label.column, outcomes)


def _held(column: pa.ChunkedArray, share: float, file: Path) -> str:
    """What a column of a file holds, given the share of numbers, as messages tell it."""
    if share > 0.5:
        return f"numbers in {file}"
    example = to_numbers(canonical_texts(plain(column)).drop_null()).example
    return f"texts (such as {one_line(example)}) in {file}"


def _refuse_other_outcomes(label: str, outcomes: Mapping[Path, set[str]]) -> None:
    """Check that files with two outcomes, each, have the same: no rule would hold for all of them.

    Raises:
        DataError: they have not.
    """
    pairs = [(file, words) for file, words in outcomes.items() if len(words) == 2]
    for file, words in pairs:
        first, others = pairs[0]
        if words != others:
            raise DataError(
                f"label column {label!r} holds {_both(others)} in {first} but {_both(words)} in "
                f"{file}; write labels alike."
            )


def _both(words: set[str]) -> str:
    return " and ".join(map(one_line, sorted(words)))


def _number_share(column: pa.ChunkedArray) -> float | None:
    """Share of the known values of a flat column that are numbers; None when there are too few."""
    array = plain(column)
    if pa.types.is_nested(array.type) or pa.types.is_temporal(array.type):
        return None
    texts = canonical_texts(array).drop_null()
    if len(texts) < _MIN_KNOWN:
        return None
    return 1.0 - to_numbers(texts).num_unreadable / len(texts)
