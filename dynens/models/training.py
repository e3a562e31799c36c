"""The training loop of the neural learners.

Everything random is drawn from (seed, epoch), and a checkpoint is written after each epoch, so a
run that was killed and continued ends exactly where an undisturbed one does.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynens import metrics
from dynens.batch import EncodedBatch, FloatArray
from dynens.config.learner import LearnerConfig
from dynens.models.base import (
    PLAINLY,
    CurvePoint,
    FitOptions,
    FitProgress,
    FitReport,
    auc_at,
    bootstrap_rows,
    is_time_up,
    validation_score,
)
from dynens.models.batches import TensorBatch, minibatches, prediction_batches
from dynens.models.checkpoints import CHECKPOINT, CUT, TrainingState, Weights, save_tensors
from dynens.models.network import CTRNetwork
from dynens.models.optim import (
    Decision,
    PlateauSchedule,
    WeightAverage,
    autocast,
    build_optimizer,
    check_finite,
    clip_gradients,
    cyclic_cosine,
    learning_rate,
    scale_learning_rate,
    set_learning_rate,
)
from dynens.run import intact, write_atomically

Network = TypeVar("Network", bound=torch.nn.Module)
Batch = TypeVar("Batch")


def predict_logits(module: torch.nn.Module, batch: EncodedBatch) -> FloatArray:
    """(B,) float32 logits in evaluation mode and full precision."""
    training, device = module.training, device_of(module)
    module.eval()
    logits = np.empty(len(batch), dtype=np.float32)
    with torch.no_grad():
        for rows, dense, ids in prediction_batches(batch):
            logits[rows] = module(dense.to(device), ids.to(device)).cpu().numpy()
    module.train(training)
    return logits


def device_of(module: torch.nn.Module) -> torch.device:
    """Where its parameters are."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def weighted_bce(logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
    """Weighted mean over rows of -log p(label), from logits."""
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.float(), labels, weight, reduction="sum"
    )
    return loss / (len(labels) if weight is None else weight.sum())


def mean_over_branches(logits: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean of a loss of (B,) logits over the branches of (B, K), a scalar."""
    return torch.stack([loss(branch) for branch in logits.unbind(dim=1)]).mean()


class BaseTrainer(ABC, Generic[Network, Batch]):
    """Trains one network, on the device it is on; subclasses say what a step is.

    Args:
        network: the network; its weights change in place.
        config: resolved learner configuration.
        seed: of shuffling, dropout and bootstrap.
        how: what it goes by.
    """

    def __init__(
        self, network: Network, config: LearnerConfig, seed: int, how: FitOptions = PLAINLY
    ) -> None:
        self.network = network
        self.device = device_of(network)
        self.config = config
        self.options = config.optimizer
        self.seed = seed
        self.how, folder = how, how.checkpoint_dir
        self.checkpoint = None if folder is None else folder / CHECKPOINT
        self.optimizer = self.build_optimizer()
        self.schedule = PlateauSchedule.from_config(self.options)
        self.average = (
            WeightAverage(network, self.options.ema_decay) if self.options.ema_decay else None
        )
        self.state = TrainingState()

    @abstractmethod
    def build_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of the network's weights."""

    @abstractmethod
    def steps_per_epoch(self, train: EncodedBatch) -> int:
        """How many batches an epoch has."""

    @abstractmethod
    def minibatches(
        self, train: EncodedBatch, rng: np.random.Generator, rows: npt.NDArray[np.int64] | None
    ) -> Iterator[Batch]:
        """An epoch's batches, in an order drawn from `rng`; of `rows` only where they are given."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar."""

    @abstractmethod
    def validate(self, valid: EncodedBatch) -> FloatArray:
        """(V,) logits of the rows that decide when to stop."""

    def fit(self, train: EncodedBatch, valid: EncodedBatch) -> FitReport:
        """Train until the plateau schedule ends, and leave the best weights in the network."""
        self.resume()
        started = time.monotonic() - self.state.seconds
        rows = bootstrap_rows(len(train), self.seed) if self.config.bootstrap else None
        snapshots = self.options.snapshots > 1
        epochs = (
            self.options.snapshots * self.options.epochs_per_snapshot
            if snapshots
            else self.options.max_epochs
        )
        while self.state.epoch < epochs and not self.state.finished:
            self._epoch(train, valid, rows, snapshots)
            self.state.epoch += 1
            self.end_of_epoch()
            self.state.seconds = time.monotonic() - started
            self.save()
        if self.state.best:
            self.load_weights(self.state.best)
        return FitReport(
            curve=tuple(self.state.curve),
            seconds=self.state.seconds,
            best_epoch=self.state.best_epoch,
            best_auc=auc_at(self.state.curve, self.state.best_epoch),
            best_score=self.schedule.best,
            is_cut=self.state.is_cut,
        )

    def _epoch(
        self,
        train: EncodedBatch,
        valid: EncodedBatch,
        rows: npt.NDArray[np.int64] | None,
        snapshots: bool,
    ) -> None:
        epoch = self.state.epoch
        rng = np.random.default_rng([self.seed, epoch])
        torch.manual_seed(int(rng.integers(2**62)))
        num_steps = self.steps_per_epoch(train)
        points = 1 if snapshots else min(self.options.evaluations_per_epoch, num_steps)
        if self.how.follow is not None:
            points = min(points, self.how.follow.points_per_epoch)
        evaluate_at = {num_steps * (k + 1) // points for k in range(points)}
        cosine = snapshots or self.options.schedule == "cosine"
        cycle_epochs = self.options.epochs_per_snapshot if snapshots else self.options.max_epochs
        losses: list[float] = []
        self.network.train()
        for step, batch in enumerate(self.minibatches(train, rng, rows), start=1):
            if cosine:
                rate = cyclic_cosine(
                    self.state.step, num_steps * cycle_epochs, self.options.learning_rate
                )
                set_learning_rate(self.optimizer, rate)
            losses.append(self.train_step(batch))
            check_finite(losses[-1], self.config.display_name, epoch + step / num_steps)
            self.state.step += 1
            self.state.is_cut = is_time_up(self.how.ends_at)
            if step in evaluate_at or self.state.is_cut:
                with self.average.applied() if self.average else contextlib.nullcontext():
                    logits = self.validate(valid)
                    progress = epoch + step / num_steps
                    point = self._point(valid, logits, progress, float(np.mean(losses)))
                    decision = self._keep(point, snapshots)
                losses.clear()
                self._act("stop" if self.state.is_cut else decision)
                if self.how.follow and len(self.state.curve) > self.how.follow.best_index:
                    self.state.finished = True
                self._report(point)
                if self.state.finished:
                    return

    def end_of_epoch(self) -> None:
        """Called when `state.epoch` epochs are done; distillation meets its peers here."""

    def score(self, point: CurvePoint, logits: FloatArray) -> float:
        """What early stopping maximises, of a validation point and the rows' logits (N,)."""
        del logits
        return validation_score(point)

    def extra_state(self) -> dict[str, Tensor]:
        """Tensors beside the network that a continued run needs; distillation has some."""
        return {}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `extra_state` gave."""

    def train_step(self, batch: Batch) -> float:
        """One optimiser step on a batch; returns its loss."""
        loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.clip_gradients()
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        return loss.item()

    def clip_gradients(self) -> None:
        """Keep a step within `clip_norm`."""
        clip_gradients(self.network, self.options.clip_norm)

    def weights(self) -> Weights:
        """A copy of all weights and buffers, which further training leaves alone."""
        return copy.deepcopy(dict(self.network.state_dict()))

    def load_weights(self, weights: Weights) -> None:
        """Take back what `weights` gave."""
        self.network.load_state_dict(weights)

    def _point(
        self, valid: EncodedBatch, logits: FloatArray, epoch: float, train_loss: float
    ) -> CurvePoint:
        probabilities = metrics.sigmoid(logits)
        labels, weight = valid.labels, valid.sample_weight
        assert labels is not None
        point = CurvePoint(
            epoch=epoch,
            train_loss=train_loss,
            valid_auc=metrics.auc(labels, probabilities, weight),
            valid_logloss=metrics.logloss(labels, probabilities, weight),
            learning_rate=learning_rate(self.optimizer),
        )
        point = replace(point, score=self.score(point, logits))
        if self.how.follow is not None:
            point = self.how.follow.followed(len(self.state.curve), point)
        self.state.curve.append(point)
        return point

    def _keep(self, point: CurvePoint, snapshots: bool) -> Decision:
        """Copy the weights just validated if they are the best, or end a cosine cycle."""
        if snapshots:
            if (self.state.epoch + 1) % self.options.epochs_per_snapshot == 0:
                self.state.snapshots.append(self.weights())
                self.state.best_epoch = point.epoch
            return "wait"
        decision = self.schedule.update(point.score)
        if decision == "improved":
            self.state.best = self.weights()
            self.state.best_epoch = point.epoch
        return "wait" if self.options.schedule == "cosine" else decision

    def _act(self, decision: Decision) -> None:
        """Lower the learning rate or stop on a plateau."""
        if decision == "stop":
            self.state.finished = True
        elif decision == "decay":
            scale_learning_rate(self.optimizer, self.options.decay_factor)
            if self.options.restart_from_best:
                self.load_weights(self.state.best)
                if self.average is not None:
                    self.average.restart()

    def _report(self, point: CurvePoint) -> None:
        if self.how.progress is None:
            return
        by_epochs = point.epoch / self.options.max_epochs
        by_decays = self.schedule.decays / (self.options.max_decays + 1)
        if self.options.schedule == "cosine":
            by_decays = 0.0
        fraction = 1.0 if self.state.finished else min(max(by_epochs, by_decays), 1.0)
        self.how.progress(FitProgress(self.config.display_name, fraction, point))

    def save(self) -> None:
        """After an epoch, or beside the last one's where time was up, which may be given later."""
        if self.checkpoint is None:
            return
        data, cut = self.to_save(), self.checkpoint.with_name(CUT)
        place = cut if self.state.is_cut else self.checkpoint
        write_atomically(place, lambda path: save_tensors(data, path))
        if not self.state.is_cut:
            cut.unlink(missing_ok=True)

    def resume(self) -> None:
        """Go on after the last whole epoch; a training that was cut ends so while time is up."""
        if self.checkpoint is None:
            return
        cut = self.checkpoint.with_name(CUT)
        path = cut if is_time_up(self.how.ends_at) and cut.exists() else self.checkpoint
        if path.exists():
            with intact(path):
                self.load(torch.load(path, map_location=self.device, weights_only=True))

    def to_save(self) -> dict[str, Any]:
        """A checkpoint."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": asdict(self.schedule),
            "average": None if self.average is None else self.average.state_dict(),
            "extra": self.extra_state(),
            "state": self.state.to_dict(),
        }

    def load(self, data: dict[str, Any]) -> None:
        """Take back what `to_save` gave."""
        self.network.load_state_dict(data["network"])
        self.optimizer.load_state_dict(data["optimizer"])
        self.schedule = PlateauSchedule(**data["schedule"])
        if self.average is not None:
            self.average.load_state_dict(data["average"])
        self.load_extra_state(data["extra"])
        self.state = TrainingState.from_dict(data["state"])


class Trainer(BaseTrainer[CTRNetwork, TensorBatch]):
    """Trains a `CTRNetwork` on rows and their labels."""

    @property
    def batch_size(self) -> int:
        return self.options.batch_size or 4096

    def build_optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.network, self.config)

    def steps_per_epoch(self, train: EncodedBatch) -> int:
        return math.ceil(len(train) / self.batch_size)

    def minibatches(
        self, train: EncodedBatch, rng: np.random.Generator, rows: npt.NDArray[np.int64] | None
    ) -> Iterator[TensorBatch]:
        for batch in minibatches(train, self.batch_size, rng, rows):
            yield batch.to(self.device)

    def loss(self, batch: TensorBatch) -> Tensor:
        """The loss of a batch, a scalar; distillation has its own."""
        labels, weight = batch.labels, batch.sample_weight
        assert labels is not None
        with autocast(self.options.precision, self.device):
            logits = self.network.branch_logits(batch.dense, batch.ids, batch.stats)
        return mean_over_branches(logits, lambda z: weighted_bce(z, labels, weight))

    def validate(self, valid: EncodedBatch) -> FloatArray:
        return predict_logits(self.network, valid)
