"""Students of two simple teachers on a tiny table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dynens.batch import EncodedBatch
from dynens.config.base import validate
from dynens.config.distill import DistillConfig
from dynens.config.learner import Device, LearnerConfig, OptimizerConfig
from dynens.distill.augment import row_space
from dynens.distill.hints import TeacherFeatures
from dynens.distill.teacher import RowFactory
from dynens.distill.trainer import DistillTrainer, Teaching
from dynens.distill.views import Views
from dynens.distill.weakness import Weakness
from dynens.models.base import FitOptions, FitReport
from dynens.models.dnn import DNNLearner
from dynens.models.network import CTRNetwork
from tests.unit.distill.rows import missing_row, units
from tests.unit.models.tables import TinyTable, lookup, tiny_table

TABLE = tiny_table(rows=600)
PRIOR = (0.6, 0.4)
ITEMS = {"c0": "item", "c1": "item", "x0": "item"}


class TwoVoices:
    """Two teachers: one reads the dense columns, the other the first id."""

    def logits(self, batch: EncodedBatch) -> np.ndarray:
        return np.stack([batch.dense.sum(axis=1), batch.ids[:, 0] / 4 - 1], axis=1).astype("f4")


class OneVoice(TwoVoices):
    def logits(self, batch: EncodedBatch) -> np.ndarray:
        return super().logits(batch) @ np.array(PRIOR, np.float32)


class TableStats:
    def __init__(self, table: TinyTable) -> None:
        self.table = table

    def transform(self, ids: np.ndarray) -> np.ndarray:
        return lookup(self.table.layout, self.table.stats, ids)


def learner_of(device: Device = "cpu", **optimizer: object) -> DNNLearner:
    options = {"batch_size": 64, "learning_rate": 0.01, "max_epochs": 6, **optimizer}
    config = LearnerConfig(
        embedding_dim=4,
        hidden_units=(12, 8),
        device=device,
        optimizer=OptimizerConfig.model_validate(options),
    )
    return DNNLearner(config, TABLE.layout, TABLE.stats, 0)


def teaching_of(distill: DistillConfig) -> Teaching:
    labeller = TwoVoices() if distill.gating else OneVoice()
    counts = np.ones(sum(1 + field.num_embeddings for field in TABLE.layout.fields), np.int64)
    missing = missing_row(TABLE.layout)
    space = row_space(TABLE.layout, units(TABLE.layout), counts, missing)
    items = row_space(TABLE.layout, units(TABLE.layout, ITEMS), counts, missing)
    valid_logits = OneVoice().logits(TABLE.valid) if distill.follow_weakness else None
    weakness = None
    if valid_logits is not None:
        weakness = Weakness(TABLE.layout, TABLE.valid, valid_logits, TABLE.train)
    factory = RowFactory(
        labeller, TABLE.train, TableStats(TABLE), space, distill, seed=0, weakness=weakness
    )
    features = None
    if distill.needs_teacher_features:
        teacher = learner_of(max_epochs=1)
        teacher.fit(TABLE.train, TABLE.valid)
        features = TeacherFeatures(teacher.networks_[0], TABLE.train)
    return Teaching(
        labeller.logits(TABLE.train),
        factory if distill.makes_rows else None,
        PRIOR if distill.gating else (),
        features,
        valid_logits,
        views=Views.of(items, ["c0"]),
    )


def fit(
    learner: DNNLearner,
    settings: Mapping[str, object],
    train: EncodedBatch = TABLE.train,
    taught: Mapping[str, object] | None = None,
    **where: object,
) -> tuple[FitReport, DistillTrainer]:
    distill = validate(DistillConfig, dict(settings), "test").without_unlabelled()
    teaching = replace(teaching_of(distill), **(taught or {}))  # type: ignore[arg-type]
    made: list[DistillTrainer] = []

    def trainer(network: CTRNetwork, config: LearnerConfig) -> DistillTrainer:
        made.append(DistillTrainer(network, config, distill, teaching, 0, FitOptions(**where)))  # type: ignore[arg-type]
        return made[0]

    return learner.fit_with(trainer, train, TABLE.valid), made[0]
