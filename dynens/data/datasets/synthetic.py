"""Rows from a known click model, so that the best possible AUC and logloss are known too.

The logit of a click is

    z = b + u_user + v_item + c_hour + s_slot + <p_user, q_item> + a·[segment matches category]
        + h(price) + drift·t·g_category,

with users drawn evenly and items by a power law; a label is Bernoulli(sigmoid(z)), then flipped
with probability `label_noise`. The Bayes-optimal score of a row is the probability of its label
given everything the model knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from dynens.config.base import FrozenConfig
from dynens.data.cache import Progress, build_once, cache_folder
from dynens.metrics import auc, logloss
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, EntityTable, FeatureSchema, FieldSpec, SplitConfig

_CHUNK = 262_144
_START_S = 1_700_000_000
_SPAN_S = 14 * 86_400
_RANK = 4

Floats = npt.NDArray[np.float64]


class SyntheticConfig(FrozenConfig):
    """The click model.

    Attributes:
        num_rows: rows.
        num_users: users.
        num_items: items.
        tail: exponent of the items' power law (0: all equally likely).
        bias: logit of the base rate.
        interaction: deviation of the user-item interaction's logit.
        views: average times an impression is shown; repeats share everything but the label.
        label_noise: probability that a label is flipped.
        drift: logit by which the categories' appeal moves from first to last row.
        seed: of everything.
    """

    num_rows: int = Field(default=200_000, ge=100)
    num_users: int = Field(default=5_000, ge=2)
    num_items: int = Field(default=2_000, ge=2)
    tail: float = Field(default=1.0, ge=0)
    bias: float = -1.2
    interaction: float = Field(default=0.8, ge=0)
    views: float = Field(default=1.0, ge=1)
    label_noise: float = Field(default=0.02, ge=0, lt=0.5)
    drift: float = Field(default=0.3, ge=0)
    seed: int = 0


class ClickModel:
    """Draws rows and knows their probabilities."""

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        rng = np.random.default_rng(config.seed)
        self._user_bias = rng.normal(0, 0.5, config.num_users)
        self._item_bias = rng.normal(0, 0.7, config.num_items)
        scale = np.sqrt(config.interaction / np.sqrt(_RANK))
        self._user_taste = rng.normal(0, scale, (config.num_users, _RANK))
        self._item_taste = rng.normal(0, scale, (config.num_items, _RANK))
        self.segment = rng.integers(0, 8, config.num_users)
        self.age = rng.integers(16, 75, config.num_users)
        self.category = rng.integers(0, 8, config.num_items)
        self.price = np.exp(rng.normal(3, 1, config.num_items))
        self.tags = [rng.choice(40, rng.integers(0, 5), replace=False) for _ in self.price]
        self._tag_effect = rng.normal(0, 0.25, 40)
        self._tag_sum = np.array([self._tag_effect[t].sum() for t in self.tags])
        self._hour_effect = 0.4 * np.sin(np.arange(24) / 24 * 2 * np.pi)
        self._slot_effect = -0.25 * np.arange(6)
        self._trend = rng.normal(0, 1, 8)
        weights = np.arange(1, config.num_items + 1) ** -config.tail
        self._popularity = np.cumsum(weights / weights.sum())

    def users(self) -> pa.Table:
        """The user table."""
        return pa.table(
            {"user_id": np.arange(len(self.age)), "segment": self.segment, "age": self.age}
        )

    def items(self) -> pa.Table:
        """The item table."""
        tags = pa.array([[f"t{i}" for i in t] for t in self.tags], pa.list_(pa.string()))
        columns = {"item_id": np.arange(len(self.price)), "category": self.category}
        return pa.table({**columns, "price": np.round(self.price, 2), "tags": tags})

    def chunks(self) -> Iterator[tuple[pa.Table, Floats]]:
        """The rows in order of time, in chunks, each with its (B,) click probabilities."""
        rng = np.random.default_rng(self.config.seed + 1)
        for start in range(0, self.config.num_rows, _CHUNK):
            size = min(_CHUNK, self.config.num_rows - start)
            yield self._chunk(rng, start, size)

    def _chunk(self, rng: np.random.Generator, start: int, size: int) -> tuple[pa.Table, Floats]:
        config = self.config
        shown = np.arange(size)
        if config.views > 1:
            fresh = rng.random(size) < 1 / config.views
            fresh[0] = True
            shown = np.maximum.accumulate(np.where(fresh, shown, 0))
        user = rng.integers(0, config.num_users, size)[shown]
        item = np.searchsorted(self._popularity, rng.random(size))[shown]
        item = np.minimum(item, config.num_items - 1)
        slot = rng.integers(0, 6, size)[shown]
        progress = (start + np.arange(size)) / config.num_rows
        time = (_START_S + progress * _SPAN_S).astype(np.int64)
        probability = self.probability(user, item, slot, time, progress)
        label = rng.random(size) < probability
        table = pa.table(
            {
                "user_id": user,
                "item_id": item,
                "slot": slot,
                "timestamp": time,
                "click": label.astype(np.int8),
            }
        )
        return table, probability

    def probability(
        self,
        user: npt.NDArray[np.int64],
        item: npt.NDArray[np.int64],
        slot: npt.NDArray[np.int64],
        time: npt.NDArray[np.int64],
        progress: Floats,
    ) -> Floats:
        """(B,) probability of a positive label, noise included."""
        category = self.category[item]
        z = self.config.bias + self._user_bias[user] + self._item_bias[item]
        z = z + (self._user_taste[user] * self._item_taste[item]).sum(axis=1)
        z = z + 0.8 * (self.segment[user] == category) + self._tag_sum[item]
        z = z + self._hour_effect[time // 3600 % 24] + self._slot_effect[slot]
        z = z - 0.3 * np.abs(np.log(self.price[item]) - 3 - (self.age[user] - 45) / 30)
        z = z + self.config.drift * progress * self._trend[category]
        noise = self.config.label_noise
        return np.asarray((1 - noise) / (1 + np.exp(-z)) + noise / (1 + np.exp(z)))


def write(config: SyntheticConfig, out: Path, progress: Progress = lambda _: None) -> None:
    """Write the three tables and `truth.json` (best AUC and logloss over the last tenth)."""
    model = ClickModel(config)
    pq.write_table(model.users(), out / "users.parquet")
    pq.write_table(model.items(), out / "items.parquet")
    first_test = int(config.num_rows * 0.9)
    scores: list[Floats] = []
    labels: list[npt.NDArray[np.int8]] = []
    writer: pq.ParquetWriter | None = None
    rows = 0
    for table, probability in model.chunks():
        writer = writer or pq.ParquetWriter(out / "interactions.parquet", table.schema)
        writer.write_table(table)
        late = np.arange(rows, rows + len(probability)) >= first_test
        scores.append(probability[late])
        labels.append(table["click"].to_numpy()[late])
        rows += len(probability)
        progress(f"{rows:,} rows written")
    if writer is not None:
        writer.close()
    truth = best_possible(np.concatenate(scores), np.concatenate(labels))
    (out / "truth.json").write_text(json.dumps({**truth, "config": config.model_dump()}, indent=1))


def best_possible(probability: Floats, labels: npt.NDArray[np.int8]) -> dict[str, float]:
    """AUC and logloss (natural log) of the true probabilities on these labels."""
    return {
        "auc": auc(labels, probability),
        "logloss": logloss(labels, probability),
        "rows": len(labels),
    }


def fetch(directory: Path | None, progress: Progress) -> Path:
    """The folder with the default synthetic tables, made when needed."""
    folder = (directory or cache_folder()) / "synthetic"
    return build_once(folder, lambda out: write(SyntheticConfig(), out, progress))


def dataset(folder: Path) -> DatasetConfig:
    """The configuration for tables that `write` made: split by time, 80/10/10."""
    fields = [
        FieldSpec(name="user_id", entity="user"),
        FieldSpec(name="segment", entity="user"),
        FieldSpec(name="age", kind="numeric", entity="user", buckets=16),
        FieldSpec(name="item_id", entity="item"),
        FieldSpec(name="category", entity="item"),
        FieldSpec(name="price", kind="numeric", entity="item", buckets=16),
        FieldSpec(name="tags", kind="multi_valued", entity="item"),
        FieldSpec(name="slot"),
        FieldSpec(name="hour", column="timestamp", derive="hour"),
    ]
    return DatasetConfig(
        name="synthetic",
        files=(str(folder / "interactions.parquet"),),
        entities=(
            EntityTable(files=(str(folder / "users.parquet"),), entity="user", key="user_id"),
            EntityTable(files=(str(folder / "items.parquet"),), entity="item", key="item_id"),
        ),
        features=FeatureSchema(
            fields=tuple(fields),
            label=LabelRule(column="click", positive="click == 1"),
            timestamp="timestamp",
            group="user_id",
            user_key="user_id",
            item_key="item_id",
        ),
        split=SplitConfig(by="time", fractions=(0.8, 0.1, 0.1)),
    )
