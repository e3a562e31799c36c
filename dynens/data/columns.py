"""Which raw columns a schema needs, and what for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from dynens.errors import DataError, SchemaError
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec, TimeFormat

ROLES = (
    "timestamp",
    "group",
    "request_id",
    "sample_weight",
    "soft_label",
    "user_key",
    "item_key",
)


def needed_columns(features: FeatureSchema) -> dict[str, str]:
    """Every raw column the schema asks for, with what for."""
    read = (spec for spec in features.fields if spec.is_read)
    needed = {spec.source: f"field {spec.name!r}" for spec in read}
    for column in sorted(features.label.columns()):
        needed.setdefault(column, "the label rule")
    for role in ROLES:
        column = getattr(features, role)
        if column:
            needed.setdefault(column, role)
    needed[features.label.column] = "the label"
    return needed


def check_roles(config: DatasetConfig, sample: pa.Table) -> None:
    """Refuse roles (timestamp, keys, …) of columns that a table lacks, before fields are inferred.

    Args:
        config: of the table.
        sample: its (joined) rows.

    Raises:
        SchemaError: there is no such column.
    """
    for role in ROLES:
        name = getattr(config.features, role)
        if name and name not in sample.column_names:
            raise nowhere(name, role, Path(config.files[0]).name, sample.column_names)


def nowhere(
    name: str, purpose: str, file: str, known: Sequence[str], remedy: str = ""
) -> SchemaError:
    """The error that a column is asked for which the `known` ones of the files do not hold."""
    alike = difflib.get_close_matches(name, known, 1, cutoff=0.7)
    meant = f" (did you mean {alike[0]!r}?)" if alike else ""
    return SchemaError(
        f"the schema asks for column {name!r} ({purpose}), which no file has{meant}; {file} has "
        f"{', '.join(known[:20])}{remedy}."
    )


def time_columns(features: FeatureSchema) -> dict[str, TimeFormat]:
    """Columns whose fields are parts of a date or time, with how they are written."""
    return {spec.source: spec.time_format for spec in features.fields if spec.derive}


def numeric_fields(features: FeatureSchema) -> dict[str, FieldSpec]:
    """Numeric fields by the column that they read."""
    return {s.source: s for s in features.fields if s.kind == "numeric" and not s.derive}


def refuse_times(features: FeatureSchema, types: Mapping[str, pa.DataType], where: str) -> None:
    """Check that numeric fields do not read columns of dates and times, which have no one unit.

    Raises:
        DataError: one does.
    """
    for name, spec in numeric_fields(features).items():
        kind = types.get(name, pa.null())
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            raise DataError(
                f"{where}: column {name!r} holds times ({kind}) where the numeric field "
                f"{spec.name!r} reads numbers; convert it, or fit with derive: epoch_days."
            )


def number_columns(features: FeatureSchema, schema: pa.Schema) -> set[str]:
    """Columns that numeric fields alone read: these are parsed while staging."""
    others = {s.source for s in features.fields if s.kind != "numeric" or s.derive}
    others |= {
        name for name, use in needed_columns(features).items() if not use.startswith("field")
    }
    return {name for name in numeric_fields(features).keys() - others if name in schema.names}


def unusable_type(error: pa.ArrowException) -> str:
    """What it means that an operation does not know the type of a column."""
    detail = str(error).splitlines()[0][:160]
    return f"a column has a type that cannot be used ({detail}); convert it."
