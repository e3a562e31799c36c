"""The two public advertising logs in their raw formats, from a local file or folder.

Criteo (Kaggle 2014 and the terabyte log): tab-separated, no header: label, 13 integers, 26 hex
texts, empty when missing. Avazu (Kaggle 2014): CSV with a header, `hour` as YYMMDDHH, UTC.
"""

from __future__ import annotations

from pathlib import Path

from dynens.data.cache import Progress, data_home
from dynens.errors import DataError
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec, SourceOptions, SplitConfig

_CRITEO_PATTERNS = ("train.txt*", "day_*", "*.tsv*", "*.txt*")
_AVAZU_PATTERNS = ("train.csv*", "train*", "*.csv*", "*.gz")
_CRITEO_NUMBERS = tuple(f"I{i}" for i in range(1, 14))
_CRITEO_TEXTS = tuple(f"C{i}" for i in range(1, 27))
_AVAZU_USER = ("device_id", "device_ip", "device_model", "device_type", "device_conn_type")
_AVAZU_FIELDS = (
    *("C1", "banner_pos", "site_id", "site_domain", "site_category"),
    *("app_id", "app_domain", "app_category", *_AVAZU_USER),
    *(f"C{i}" for i in range(14, 22)),
)


def fetch_criteo(directory: Path | None, progress: Progress) -> Path:
    """The file of the Criteo log."""
    return _find("criteo", directory, _CRITEO_PATTERNS)


def fetch_avazu(directory: Path | None, progress: Progress) -> Path:
    """The file of the Avazu log."""
    return _find("avazu", directory, _AVAZU_PATTERNS)


def criteo(file: Path) -> DatasetConfig:
    """Criteo: numbers by rank and in buckets, texts with an id from two occurrences on."""
    numbers = [FieldSpec(name=n, kind="numeric", buckets=32) for n in _CRITEO_NUMBERS]
    texts = [FieldSpec(name=n) for n in _CRITEO_TEXTS]
    return DatasetConfig(
        name="criteo",
        files=(str(file),),
        features=FeatureSchema(label=LabelRule(column="label"), fields=(*numbers, *texts)),
        source=SourceOptions(
            delimiter="\t",
            header=False,
            columns=("label", *_CRITEO_NUMBERS, *_CRITEO_TEXTS),
            quoting=False,
        ),
        split=SplitConfig(by="random"),
    )


def avazu(file: Path) -> DatasetConfig:
    """Avazu: every column a category, hour and weekday from `hour`, split by time."""
    fields = [
        FieldSpec(name="hour_of_day", column="hour", derive="hour", time_format="yymmddhh"),
        FieldSpec(name="weekday", column="hour", derive="weekday", time_format="yymmddhh"),
    ]
    for name in _AVAZU_FIELDS:
        fields.append(FieldSpec(name=name, entity="user" if name in _AVAZU_USER else "context"))
    return DatasetConfig(
        name="avazu",
        files=(str(file),),
        features=FeatureSchema(
            label=LabelRule(column="click"),
            fields=tuple(fields),
            timestamp="hour",
            time_format="yymmddhh",
            excluded=("id",),
        ),
        split=SplitConfig(by="auto"),
    )


def _find(name: str, directory: Path | None, patterns: tuple[str, ...]) -> Path:
    base = directory
    if base is None:
        home = data_home()
        base = home / name if home is not None else None
    if base is None:
        raise DataError(
            f"{name} is read from a local copy; give its file or folder with --dir, or put it in "
            f"{name}/ below DYNENS_DATA_HOME."
        )
    if base.is_file():
        return base
    for pattern in patterns:
        found = sorted(path for path in base.glob(pattern) if path.is_file())
        if found:
            return found[0]
    raise DataError(f"{base} holds no {name} log; give the file itself.")
