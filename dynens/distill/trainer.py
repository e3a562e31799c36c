"""Training the student: the learners' loop with the teacher's voice in every step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dynens.batch import EncodedBatch
from dynens.config.distill import DistillConfig
from dynens.config.learner import LearnerConfig
from dynens.distill.losses import response_loss
from dynens.distill.schedules import schedule_value
from dynens.distill.teacher import LabelledRows, RowFactory
from dynens.ensemble.blend import Logits
from dynens.models.base import FitReport, ProgressCallback
from dynens.models.batches import TensorBatch
from dynens.models.network import CTRNetwork
from dynens.models.optim import autocast
from dynens.models.training import Trainer


class DistillTrainer(Trainer):
    """Trains a student on logged rows with soft labels and on rows made up for the teacher.

    Args:
        network: the student.
        config: the student's resolved learner configuration.
        distill: the distillation.
        teacher_logits: (N,) the teacher's logits of the training rows.
        factory: source of made-up rows, or None for none.
        seed, checkpoint_dir, progress: as for `Trainer`.
    """

    def __init__(
        self,
        network: CTRNetwork,
        config: LearnerConfig,
        distill: DistillConfig,
        teacher_logits: Logits,
        factory: RowFactory | None,
        seed: int,
        checkpoint_dir: Path | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        super().__init__(network, config, seed, checkpoint_dir, progress)
        self._distill = distill
        self._teacher_logits = torch.from_numpy(np.asarray(teacher_logits, dtype=np.float32))
        self._factory = factory
        self._made: Iterator[LabelledRows] | None = None
        self._steps_per_epoch = 1

    def fit(self, train: EncodedBatch, valid: EncodedBatch) -> FitReport:
        self._steps_per_epoch = max(-(-len(train) // self.batch_size), 1)
        try:
            return super().fit(train, valid)
        finally:
            close = getattr(self._made, "close", None)
            if close is not None:
                close()

    def loss(self, batch: TensorBatch) -> Tensor:
        assert batch.labels is not None
        made = self._made_rows()
        dense, ids, stats = self._inputs(batch, made)
        teacher = self._teacher_logits[torch.from_numpy(batch.index)]
        ones = torch.ones(len(batch))
        weight = ones if batch.sample_weight is None else batch.sample_weight
        labels, has_label = batch.labels, ones
        if made is not None:
            extra = torch.ones(len(made.rows))
            teacher = torch.cat([teacher, torch.from_numpy(made.logits)])
            labels = torch.cat([labels, 0 * extra])
            has_label = torch.cat([has_label, 0 * extra])
            weight = torch.cat([weight, extra * weight.mean()])
        with autocast(self.options.precision):
            logits = self.network(dense, ids, stats)
        epoch = self.state.step / self._steps_per_epoch
        return response_loss(
            logits.float(),
            teacher,
            labels,
            has_label,
            weight,
            alpha=schedule_value(self._distill.alpha, epoch, self.options.max_epochs),
            temperature=schedule_value(self._distill.temperature, epoch, self.options.max_epochs),
        )

    def _made_rows(self) -> LabelledRows | None:
        if self._factory is None:
            return None
        if self._made is None:
            count = max(round(self._distill.augmented_per_row * self.batch_size), 1)
            self._made = self._factory.batches(self.state.step, count)
        return next(self._made)

    def _inputs(
        self, batch: TensorBatch, made: LabelledRows | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logged rows, then made-up rows, whose statistics come from the frozen tables."""
        if made is None:
            return batch.dense, batch.ids, batch.stats
        made_ids = torch.from_numpy(made.rows.ids)
        stats = batch.stats
        if stats is not None and made.rows.stats is not None:
            stats = torch.cat([stats, torch.from_numpy(made.rows.stats)])
        return (
            torch.cat([batch.dense, torch.from_numpy(made.rows.dense)]),
            torch.cat([batch.ids, made_ids]),
            stats,
        )
