"""The trained student made smaller, or ready for INT8, by further distillation from its pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynens.batch import EncodedBatch
from dynens.config.distill import (
    DistillConfig,
    PruningConfig,
    QuantisationAwareConfig,
    ScheduleConfig,
)
from dynens.config.learner import LearnerConfig
from dynens.distill.trainer import DistillTrainer, Int8Teaching, Teaching
from dynens.ensemble.int8 import calibration_rows
from dynens.models.base import FitOptions, FitProgress, FitReport, ProgressCallback
from dynens.models.batches import TensorBatch, tensor_batch
from dynens.models.net_learner import NetLearner
from dynens.models.network import CTRNetwork
from dynens.models.pruning import (
    magnitude_importance,
    most_important,
    pruned_weights,
    taylor_importance,
)
from training.context import StageContext

# Rows behind a Taylor importance, evenly spaced.
_IMPORTANCE_ROWS = 32_768
_CHUNK_ROWS = 4096

Trained = tuple[NetLearner, FitReport]


@dataclass(frozen=True)
class Lessons:
    """What a student was trained with, for going on.

    Attributes:
        context: the stage's.
        distill: the student's distillation.
        teaching: what it was taught from.
        train, stop_rows: training rows, and those that pick the epoch.
    """

    context: StageContext
    distill: DistillConfig
    teaching: Teaching
    train: EncodedBatch
    stop_rows: EncodedBatch

    def go_on(
        self,
        learner: NetLearner,
        config: LearnerConfig,
        weights: Mapping[str, Tensor],
        how: PruningConfig | QuantisationAwareConfig,
        **taught: Any,
    ) -> Trained:
        """Distil on from `weights`, along half a cosine.

        Args:
            learner: the student as it is.
            config: its configuration from now on.
            weights: a network's state that fits `config`.
            how: epochs and learning rate.
            taught: attributes of `Teaching` that change.
        """
        changed = {
            "schedule": "cosine",
            "max_epochs": how.epochs,
            "learning_rate": how.learning_rate,
        }
        optimizer = config.optimizer.model_copy(update=changed)
        config = config.model_copy(update={"optimizer": optimizer})
        seed, context = self.context.config.seed, self.context
        distill = self.distill.model_copy(
            update={name: ended(getattr(self.distill, name)) for name in ("alpha", "temperature")}
        )
        teaching = replace(self.teaching, peers=None, **taught)
        options = FitOptions(checkpoint_dir=context.checkpoints, progress=context.progress)

        def trainer(network: CTRNetwork, config: LearnerConfig) -> DistillTrainer:
            network.load_state_dict(weights)
            return DistillTrainer(network, config, distill, teaching, seed, options)

        smaller = type(learner)(config, learner.layout, learner.stats, seed)
        return smaller, smaller.fit_with(trainer, self.train, self.stop_rows)


def prune(learner: NetLearner, lessons: Lessons) -> Trained:
    """Cut the least important units of every hidden layer, then distil to recover."""
    pruning, (network,) = lessons.distill.pruning, learner.networks_
    if pruning.criterion == "magnitude":
        importance = magnitude_importance(network)
    else:
        importance = _taylor(network, lessons)
    kept = most_important(importance, pruning.share)
    units = tuple(len(of_layer) for of_layer in kept)
    config = learner.config.model_copy(update={"hidden_units": units})
    weights = pruned_weights(network, kept)
    return lessons.go_on(learner, config, weights, pruning, unpruned=network.train())


def quantise(learner: NetLearner, lessons: Lessons) -> Trained:
    """Distil on in the arithmetic of the INT8 form that the router's stage will make."""
    (network,) = learner.networks_
    rows = calibration_rows(lessons.train, lessons.context.config.seed)
    return lessons.go_on(
        learner,
        learner.config,
        dict(network.state_dict()),
        lessons.distill.quantisation_aware,
        int8=Int8Teaching(network, rows),
    )


@dataclass(frozen=True)
class Compression:
    """A way to make the trained student cheaper, and whether a configuration asks for it."""

    is_asked: Callable[[DistillConfig], bool]
    apply: Callable[[NetLearner, Lessons], Trained]


COMPRESSIONS: dict[str, Compression] = {
    "pruning": Compression(lambda config: config.pruning.share > 0, prune),
    "quantisation": Compression(lambda config: config.quantisation_aware.weight > 0, quantise),
}
"""In this order, so that what is rounded is what is left."""


def asked(distill: DistillConfig) -> dict[str, Compression]:
    """The compressions that a configuration asks for."""
    return {name: way for name, way in COMPRESSIONS.items() if way.is_asked(distill)}


def compress(learner: NetLearner, lessons: Lessons) -> tuple[NetLearner, dict[str, FitReport]]:
    """The student after all compressions that its distillation asks for, and their reports."""
    context, reports = lessons.context, {}
    ways = asked(lessons.distill)
    for part, (name, way) in enumerate(ways.items(), start=1):
        place = replace(
            context,
            checkpoints=context.checkpoints / name,
            progress=within(context.progress, part, 1 + len(ways)),
        )
        learner, reports[name] = way.apply(learner, replace(lessons, context=place))
    return learner, reports


def within(report: ProgressCallback, part: int, parts: int) -> ProgressCallback:
    """Progress of one of several trainings, counted from 0, as that of all."""

    def scaled(progress: FitProgress) -> None:
        report(replace(progress, fraction=(part + progress.fraction) / parts))

    return scaled


def ended(schedule: ScheduleConfig) -> ScheduleConfig:
    """The value that a schedule over training ends with, for what comes after it."""
    if schedule.kind in ("constant", "adaptive"):
        return schedule
    return ScheduleConfig(start=schedule.end)


def _taylor(network: CTRNetwork, lessons: Lessons) -> list[Tensor]:
    """Importance for the response loss of training rows at temperature 1."""
    logits = lessons.teaching.logits
    if lessons.teaching.prior:
        logits = logits @ np.array(lessons.teaching.prior, np.float32)
    soft = torch.sigmoid(torch.from_numpy(np.asarray(logits, np.float32)))
    alpha = ended(lessons.distill.alpha).start

    def loss(logits: Tensor, batch: TensorBatch) -> Tensor:
        assert batch.labels is not None
        target = alpha * soft[torch.from_numpy(batch.index)] + (1 - alpha) * batch.labels
        return torch.nn.functional.binary_cross_entropy_with_logits(
            logits, target, batch.sample_weight, reduction="none"
        )

    return taylor_importance(network, _spaced(lessons.train), loss)


def _spaced(train: EncodedBatch) -> Iterator[TensorBatch]:
    rows = np.arange(0, len(train), max(len(train) // _IMPORTANCE_ROWS, 1))
    for start in range(0, len(rows), _CHUNK_ROWS):
        yield tensor_batch(train, rows[start : start + _CHUNK_ROWS])
