"""Datasets known by name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynens.data.cache import Progress
from dynens.data.datasets import adlogs, kuairand, movielens, synthetic
from dynens.data.inference.infer import label_rule
from dynens.data.reading.sources import expand, file_schema
from dynens.errors import ConfigError, DataError
from dynens.schema import (
    DEFAULT_SOURCE,
    DEFAULT_SPLIT,
    DatasetConfig,
    FeatureSchema,
    SourceOptions,
    SplitConfig,
    load_dataset,
)

_TABLE = re.compile(r"[.](csv|tsv|tab|txt|parquet|pq|arrow|feather)([.](gz|zst|bz2))?$")


@dataclass(frozen=True)
class Preset:
    """One known dataset.

    Attributes:
        about: one line.
        fetch: (folder or None, progress) → the folder with its files, downloading where that is
            possible and needed.
        config: folder → configuration.
    """

    about: str
    fetch: Callable[[Path | None, Progress], Path]
    config: Callable[[Path], DatasetConfig]


PRESETS: dict[str, Preset] = {
    "movielens-1m": Preset(
        "1 million film ratings, 739 thousand kept; liked (4-5) against disliked (1-2)",
        movielens.fetch,
        movielens.dataset,
    ),
    "movielens-1m-sample": Preset(
        "the ratings of a quarter of MovieLens-1M's users",
        movielens.fetch_sample,
        movielens.sample_dataset,
    ),
    "kuairand-pure": Preset(
        "impressions of a short-video feed, clicked or not (needs --dir or DYNENS_DATA_HOME)",
        kuairand.fetch,
        kuairand.dataset,
    ),
    "kuairand-pure-history": Preset(
        "the same with each user's earlier videos as sequences",
        kuairand.fetch,
        kuairand.dataset_with_history,
    ),
    "criteo": Preset(
        "Criteo's display ads, raw format (needs --dir)", adlogs.fetch_criteo, adlogs.criteo
    ),
    "avazu": Preset(
        "Avazu's mobile ads, raw format (needs --dir)", adlogs.fetch_avazu, adlogs.avazu
    ),
    "synthetic": Preset(
        "200,000 rows of a known click model, with its own best possible AUC",
        synthetic.fetch,
        synthetic.dataset,
    ),
}


def list_presets() -> list[tuple[str, str]]:
    """(name, description) of every preset."""
    return [(name, preset.about) for name, preset in PRESETS.items()]


def fetch(name: str, directory: Path | None = None, progress: Progress | None = None) -> Path:
    """Make a preset's files available and return their folder.

    Args:
        name: of the preset.
        directory: a local copy; None: `DYNENS_DATA_HOME`, then the cache, then a download.
        progress: told about each step.

    Raises:
        DataError: the preset is unknown, or its files can be neither found nor fetched.
    """
    preset = _preset(name)
    try:
        return preset.fetch(directory, progress or (lambda _: None))
    except OSError as e:
        where = directory or "the folder of " + name
        raise DataError(f"{where} cannot be used ({e.strerror or e}); give another --dir.") from e


def dataset_for(
    name: str, data_dir: Path | None = None, progress: Progress | None = None
) -> DatasetConfig:
    """The configuration of a preset (fetched when needed) or of a `dataset.yaml`.

    Args:
        name: a preset, `preset:path` with the path of a local copy, or a YAML file.
        data_dir: a local copy of the preset.
        progress: told about each step.

    Raises:
        DataError: the preset is unknown or cannot be fetched.
        ConfigError: the YAML file is wrong.
    """
    preset, colon, path = name.partition(":")
    if colon and preset in PRESETS:
        name, data_dir = preset, Path(path)
    if name in PRESETS:
        return PRESETS[name].config(fetch(name, data_dir, progress))
    if _TABLE.search(name.lower()):
        raise ConfigError(
            f"--data takes a preset or a dataset.yaml, and {name} is a table; give it as "
            f"--train {name} --label COL."
        )
    if name.lower().endswith((".yaml", ".yml")) or os.sep in name:
        if data_dir is not None:
            raise ConfigError(
                f"--dir is the folder of a preset, and {name} names its files itself."
            )
        return load_dataset(Path(name))
    raise DataError(f"there is no preset {name!r}; {_choices()}, or give a dataset.yaml.")


def dataset_from_files(
    train: Sequence[str | Path] | str | Path,
    valid: Sequence[str | Path] | str | Path = (),
    test: Sequence[str | Path] | str | Path = (),
    *,
    label: str,
    timestamp: str | None = None,
    source: SourceOptions = DEFAULT_SOURCE,
    split: SplitConfig = DEFAULT_SPLIT,
) -> DatasetConfig:
    """A dataset of given files; types are inferred and missing splits cut from train.

    Args:
        train: file or files (globs allowed).
        valid: the same, for validation.
        test: the same, for test.
        label: the label column, or a rule such as `rating >= 4`.
        timestamp: the column with the time of the row; None: inferred.
        source: layout of text files.
        split: how missing parts are cut.
    """
    files = _absolute(train)
    columns = file_schema(expand(files)[0], source).names
    return DatasetConfig(
        name=_name(Path(files[0])),
        files=files,
        valid_files=_absolute(valid),
        test_files=_absolute(test),
        features=FeatureSchema(label=label_rule(label, columns), timestamp=timestamp),
        source=source,
        split=split,
    )


def _name(file: Path) -> str:
    """What a table is called: as its file, or as the folder of one that is called train."""
    stem = file.name.split(".")[0]
    if not stem.strip("*?[]"):
        return "dataset"
    return file.parent.name if stem.lower() == "train" and file.parent.name else stem


def _absolute(files: Sequence[str | Path] | str | Path) -> tuple[str, ...]:
    if isinstance(files, (str, Path)):
        files = [files]
    return tuple(os.path.abspath(file) for file in files)


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise DataError(f"there is no preset {name!r}; {_choices()}.")
    return PRESETS[name]


def _choices() -> str:
    return f"known are {', '.join(PRESETS)}"
