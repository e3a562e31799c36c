"""KuaiRand-Pure: impressions of a short-video feed, from a local folder.

Label `is_click`; everything else the user did with a video happened after the click and is left
out. Trained up to 2022-05-02, validated on 05-03, tested on 05-04 and 05-05 (China Standard Time,
by the log's own `date`). `duration_ms` repeats the video table's `video_duration`.

References:
    Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed
    Videos", CIKM 2022.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from dynens.data.cache import Progress, data_home
from dynens.data.reading.sources import file_schema
from dynens.errors import DataError
from dynens.rules import LabelRule
from dynens.schema import (
    DatasetConfig,
    EntityTable,
    FeatureSchema,
    FieldSpec,
    SplitConfig,
    VocabularyPolicy,
)

POST_CLICK = (
    *("long_view", "is_like", "is_follow", "is_comment", "is_forward", "is_hate"),
    *("is_profile_enter", "play_time_ms", "profile_stay_time", "comment_stay_time"),
    "is_rand",
)
_NAMES: dict[str, tuple[str, ...]] = {
    "interactions": ("interactions.parquet", "log_standard_4_22_to_5_08_pure.csv"),
    "users": ("users.parquet", "user_features_pure.csv"),
    "videos": ("videos.parquet", "video_features_basic_pure.csv"),
    "history": ("user_history.parquet",),
}
_FOLDERS = (".", "kuairand_pure", "kuairand-pure", "KuaiRand-Pure", "data", "KuaiRand-Pure/data")
_COUNTS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
_CONSTANT = ("is_lowactive_period", "visible_status")
_SEQUENCES = ("watch_seq", "like_seq", "long_watch_seq")
_SEQUENCE_LEN = 20


def fetch(directory: Path | None, progress: Progress) -> Path:
    """The folder with the tables (the one given, its parent, or below `DYNENS_DATA_HOME`).

    Raises:
        DataError: they are not there.
    """
    base = directory or data_home()
    if base is None:
        raise DataError(
            "kuairand-pure is read from a local copy; give its folder with --dir or in "
            "DYNENS_DATA_HOME (get it from https://kuairand.com)."
        )
    for name in _FOLDERS:
        if _find(base / name, "interactions") is not None:
            return base / name
    raise DataError(
        f"{base} holds no KuaiRand-Pure; it needs {' or '.join(_NAMES['interactions'])}."
    )


def dataset(folder: Path) -> DatasetConfig:
    """Without the users' history."""
    return _config("kuairand-pure", folder, history=False)


def dataset_with_history(folder: Path) -> DatasetConfig:
    """With the videos each user watched, liked and watched long before the log begins.

    Raises:
        DataError: the folder has no `user_history.parquet`.
    """
    return _config("kuairand-pure-history", folder, history=True)


def _config(name: str, folder: Path, history: bool) -> DatasetConfig:
    interactions = _need(folder, "interactions")
    users, videos = _need(folder, "users"), _need(folder, "videos")
    entities = [
        EntityTable(files=(str(users),), entity="user", key="user_id"),
        EntityTable(files=(str(videos),), entity="item", key="video_id"),
    ]
    fields = [
        FieldSpec(name="user_id", entity="user"),
        *_user_fields(file_schema(users)),
        FieldSpec(name="video_id", entity="item"),
        *_video_fields(file_schema(videos)),
        FieldSpec(name="tab"),
        FieldSpec(name="hour", column="hourmin"),
    ]
    if history:
        table = _need(folder, "history")
        entities.append(EntityTable(files=(str(table),), entity="user", key="user_id"))
        fields += [_sequence(name) for name in _SEQUENCES]
        fields.append(FieldSpec(name="history_len", kind="numeric", entity="user", buckets=16))
    return DatasetConfig(
        name=name,
        files=(str(interactions),),
        entities=tuple(entities),
        features=FeatureSchema(
            fields=tuple(fields),
            label=LabelRule(column="is_click", positive="is_click == 1"),
            timestamp="date",
            time_format="yyyymmdd",
            group="user_id",
            user_key="user_id",
            item_key="video_id",
            excluded=POST_CLICK,
        ),
        split=SplitConfig(by="time", valid_from=20220503, test_from=20220504),
    )


def _sequence(name: str) -> FieldSpec:
    return FieldSpec(
        name=name,
        kind="multi_valued",
        entity="user",
        max_len=_SEQUENCE_LEN,
        keep="last",
        vocabulary=VocabularyPolicy(min_count=5),
    )


def _user_fields(schema: pa.Schema) -> list[FieldSpec]:
    fields = []
    for name in schema.names:
        if name == "user_id" or name in _CONSTANT:
            continue
        if name in _COUNTS:
            fields.append(FieldSpec(name=name, kind="numeric", entity="user", buckets=16))
        else:
            fields.append(FieldSpec(name=name, entity="user"))
    return fields


def _video_fields(schema: pa.Schema) -> list[FieldSpec]:
    fields = []
    for name in schema.names:
        if name in ("video_id", *_CONSTANT):
            continue
        if name == "tag":
            fields.append(FieldSpec(name=name, kind="multi_valued", entity="item", max_len=4))
        elif name == "video_duration":
            fields.append(FieldSpec(name=name, kind="numeric", entity="item", buckets=32))
        else:
            fields.append(FieldSpec(name=name, entity="item"))
    return fields


def _find(folder: Path, table: str) -> Path | None:
    for name in _NAMES[table]:
        if (folder / name).is_file():
            return folder / name
    return None


def _need(folder: Path, table: str) -> Path:
    found = _find(folder, table)
    if found is None:
        raise DataError(f"{folder} lacks {' or '.join(_NAMES[table])}; complete the dataset.")
    return found
