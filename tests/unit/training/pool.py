"""A tiny table, and the stages of a run on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dynens.config.base import validate
from dynens.config.run import RunConfig
from dynens.data.datasets.presets import dataset_from_files
from dynens.run import RunDirectory
from training.context import StageContext

FAST = {"max_epochs": 2, "learning_rate": 0.01}
SETTINGS = {
    "learners": {
        "dnn": {"hidden_units": [8], "embedding_dim": 4, "optimizer": FAST},
        "dcnv2": {"model": "dcnv2", "hidden_units": [8], "embedding_dim": 4, "optimizer": FAST},
        "trees": {"model": "xgboost", "trees": {"num_trees": 10, "max_depth": 3}},
    },
    "ensemble": {"weight_methods": ["uniform"]},
    "student": {"model": "dnn", "hidden_units": [8], "embedding_dim": 4, "optimizer": FAST},
}


def clicks(path: Path, num_rows: int = 1200) -> None:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 30, num_rows), rng.integers(0, 20, num_rows)
    price = rng.normal(size=num_rows)
    z = rng.normal(size=30)[user] + rng.normal(size=20)[item] + price
    clicked = (rng.random(num_rows) < 1 / (1 + np.exp(-z))).astype(int)
    table = {"user": user.astype(str), "item": item.astype(str), "price": price, "click": clicked}
    pq.write_table(pa.table(table), path)


def context_of(run: RunDirectory, out: Path, **distill: object) -> StageContext:
    distill = {"faithful": {"below": 0}} | distill
    config = validate(RunConfig, {**SETTINGS, "distill": distill}, "test")
    dataset = dataset_from_files(run.root / "clicks.parquet", label="click")
    out.mkdir(parents=True, exist_ok=True)
    return StageContext(run, dataset, config, out, out / "checkpoints", lambda _: None)
