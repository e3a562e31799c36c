"""One neural learner over several Ray workers: TorchTrainer and `DistributedModelParallel`.

Embedding tables are sharded (table-wise, column-wise) or replicated (data-parallel) over gloo; the
head is replicated. A global batch is split over the workers, so that the result is one worker's up
to the order of additions. The best weights are gathered back to plain ones after each gain, and
are also the checkpoint from which killed workers continue.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import TorchConfig, TorchTrainer
from torch import Tensor

from dynens import metrics
from dynens.batch import EncodedBatch, FloatArray
from dynens.config.learner import LearnerConfig
from dynens.data.prepared import PreparedData, open_prepared
from dynens.errors import ConfigError, TrainingError
from dynens.metrics import sigmoid
from dynens.models.base import CurvePoint, FitReport, auc_at, validation_score
from dynens.models.batches import TensorBatch, prediction_batches, tensor_batch
from dynens.models.defaults import resolve_config
from dynens.models.net_learner import NetLearner
from dynens.models.optim import (
    Decision,
    PlateauSchedule,
    WeightAverage,
    autocast,
    check_finite,
    scale_learning_rate,
    set_learning_rate,
)
from dynens.models.registry import MODELS
from dynens.models.training import weighted_bce
from dynens.run import FIT_REPORT
from training.sharding import (
    Sharding,
    Weights,
    build_optimizer,
    clip_gradients,
    fields_of,
    gather,
    scatter,
    shard,
    share_of_batch,
)

WEIGHTS = "weights.pt"


@dataclass(frozen=True)
class DistributedConfig:
    """How a learner is spread.

    Attributes:
        num_workers: worker processes.
        sharding: of every embedding table. Column-wise needs an embedding size that is a multiple
            of 4 per worker.
        cpus_per_worker: cores that Ray reserves for each worker.
        max_failures: times the workers are started again after one of them died.
    """

    num_workers: int = 2
    sharding: Sharding = "table_wise"
    cpus_per_worker: float = 1
    max_failures: int = 2


def fit_distributed(
    config: LearnerConfig,
    data_dir: Path,
    out_dir: Path,
    *,
    seed: int,
    spread: DistributedConfig,
    storage: Path,
    valid_rows: npt.NDArray[np.bool_] | None = None,
    follow: FitReport | None = None,
) -> FitReport:
    """Train `config` on prepared data with several workers and save a plain learner.

    Args:
        config: of a neural learner.
        data_dir: folder of `dynens.data.prepare.prepare`, visible to every worker.
        out_dir: the learner is saved here, loadable by `dynens.models.registry.load_learner`.
        seed: of initial weights and shuffling.
        spread: workers and sharding.
        storage: folder for Ray's checkpoints, visible to every worker.
        valid_rows: which validation rows choose the epoch; None: all.
        follow: as for `BaseLearner.fit`.

    Raises:
        ConfigError: the model is not neural, or the tables cannot be sharded so.
        TrainingError: training failed.
    """
    check_spread(config, spread)
    started = time.monotonic()
    arguments: dict[str, Any] = {"config": config.model_dump(mode="json"), "seed": seed}
    arguments |= {"data_dir": str(data_dir), "out_dir": str(out_dir), "sharding": spread.sharding}
    arguments |= {"valid_rows": valid_rows, "follow": follow}
    trainer = _trainer(arguments, spread, storage, f"{config.display_name}-{seed}")
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as e:
        raise TrainingError(
            f"{config.display_name}: distributed training failed ({e}); see Ray's worker logs."
        ) from e
    return _report(out_dir, time.monotonic() - started)


def _trainer(
    arguments: dict[str, Any], spread: DistributedConfig, storage: Path, name: str
) -> TorchTrainer:
    return TorchTrainer(
        _worker,
        train_loop_config=arguments,
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=spread.num_workers,
            resources_per_worker={"CPU": spread.cpus_per_worker},
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage.resolve()),
            failure_config=ray.train.FailureConfig(max_failures=spread.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )


def check_spread(config: LearnerConfig, spread: DistributedConfig) -> None:
    """Refuse what several workers cannot do.

    Raises:
        ConfigError: the model is not neural, or has settings that are for one process.
    """
    learner = MODELS[config.model]
    if not issubclass(learner, NetLearner):
        raise ConfigError(f"{config.model} is not neural; only neural learners have workers.")
    if config.branches > 1:
        raise ConfigError(
            f"branches is {config.branches}; workers would train the branches' average and not "
            "each of them. Set branches to 1 or train in one process."
        )
    options = config.optimizer
    ignored = {
        "bootstrap": config.bootstrap,
        "optimizer.snapshots": options.snapshots > 1,
        "optimizer.schedule": options.schedule != "plateau",
        "optimizer.evaluations_per_epoch": options.evaluations_per_epoch > 1,
    }
    for name in (name for name, is_asked in ignored.items() if is_asked):
        raise ConfigError(
            f"{config.display_name}: several workers do not know {name}; leave it at its default "
            "or train in one process."
        )
    width = learner.head_class.embedding_width(config)
    if spread.sharding == "column_wise" and width % (4 * spread.num_workers):
        raise ConfigError(
            f"column_wise sharding over {spread.num_workers} workers needs embeddings of a "
            f"multiple of {4 * spread.num_workers} columns, and {config.model} has {width}; change "
            "embedding_dim or use table_wise."
        )


def _report(out_dir: Path, seconds: float) -> FitReport:
    data = json.loads((out_dir / FIT_REPORT).read_text(encoding="utf-8"))
    return replace(FitReport.from_dict(data), seconds=seconds)


def _worker(arguments: dict[str, Any]) -> None:
    """What every Ray worker runs."""
    data = open_prepared(Path(arguments["data_dir"]))
    raw = LearnerConfig.model_validate(arguments["config"])
    # Sharded tables have kernels and an optimiser of their own.
    options = raw.optimizer.model_copy(update={"embedding_optimizer": "adam"})
    raw = raw.model_copy(update={"optimizer": options})
    config = resolve_config(raw, data.layout, len(data.split("train")))
    torch.set_num_threads(config.num_threads)
    given = (arguments[name] for name in ("seed", "sharding", "valid_rows", "follow"))
    worker = ShardedTraining(data, config, *given)
    worker.resume(ray.train.get_checkpoint())
    worker.run(worker.publish)
    if dist.get_rank() == 0:
        worker.save(Path(arguments["out_dir"]))


class ShardedTraining:
    """Training of one learner inside one of the workers of a process group.

    Args:
        data: the prepared table.
        config: resolved configuration.
        seed: of initial weights and shuffling.
        sharding: of the embedding tables.
        valid_rows: which validation rows choose the epoch; None: all.
        follow: as for `BaseLearner.fit`.
    """

    def __init__(
        self,
        data: PreparedData,
        config: LearnerConfig,
        seed: int,
        sharding: Sharding,
        valid_rows: npt.NDArray[np.bool_] | None,
        follow: FitReport | None = None,
    ) -> None:
        learner = MODELS[config.model](config, data.layout, data.stats, seed)
        assert isinstance(learner, NetLearner)
        self.learner, self.follow = learner, follow
        self.config = config
        self.seed = seed
        self.train, self.valid = data.split("train"), data.split("valid")
        if valid_rows is not None:
            self.valid = self.valid.take(valid_rows)
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        torch.manual_seed(seed)
        self.plain = learner.build_network(config)
        self.plain.fit_stats(self.train.stats)
        self.sharding = sharding
        self.model = shard(self.plain, sharding, self.world)
        scatter(self.model, self.plain.state_dict(), fields_of(self.plain))
        self.optimizer = build_optimizer(self.model, config)
        self.schedule = PlateauSchedule.from_config(config.optimizer)
        decay = config.optimizer.ema_decay
        self.average = WeightAverage(self.model, decay) if decay else None
        self.epoch = 0
        self.finished = False
        self.curve: list[CurvePoint] = []
        self.best: Weights = {}
        self.best_epoch = 0.0

    def run(self, after_epoch: Callable[[], None]) -> None:
        """Train to the end of the plateau schedule; `after_epoch` is called after each epoch."""
        while self.epoch < self.config.optimizer.max_epochs and not self.finished:
            loss = self._epoch()
            self.epoch += 1
            with self.average.applied() if self.average else contextlib.nullcontext():
                decision = self._keep(self._evaluate(loss))
            self._act(decision)
            if self.follow and len(self.curve) > self.follow.best_index:
                self.finished = True
            after_epoch()

    def _epoch(self) -> float:
        self.model.train()
        losses = []
        for batch, share in self._local_batches():
            assert batch.labels is not None
            with autocast(self.config.optimizer.precision, torch.device("cpu")):
                logits = self.model(batch.dense, batch.ids, batch.stats)
            loss = share * weighted_bce(logits, batch.labels, batch.sample_weight)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            clip_gradients(self.model, self.config.optimizer.clip_norm, self.sharding)
            self.optimizer.step()
            if self.average is not None:
                self.average.update()
            losses.append(loss.item())
        mean = self._mean_over_workers(float(np.mean(losses)))
        check_finite(mean, self.config.display_name, self.epoch + 1)
        return mean

    def _local_batches(self) -> Iterator[tuple[TensorBatch, float]]:
        """This worker's rows of every global batch, and their share; all take as many steps."""
        rng = np.random.default_rng([self.seed, self.epoch])
        torch.manual_seed(int(rng.integers(2**62)) + self.rank)
        order = rng.permutation(len(self.train))
        size = self.config.optimizer.batch_size or 4096
        for rows in np.split(order, range(size, len(order), size)):
            if len(rows) >= self.world:
                mine = rows[self.rank :: self.world]
                share = share_of_batch(mine, rows, self.train.sample_weight, self.world)
                yield tensor_batch(self.train, mine), share

    def _evaluate(self, train_loss: float) -> CurvePoint:
        probabilities = sigmoid(self._valid_logits())
        labels, weight = self.valid.labels, self.valid.sample_weight
        assert labels is not None
        point = CurvePoint(
            epoch=float(self.epoch),
            train_loss=train_loss,
            valid_auc=metrics.auc(labels, probabilities, weight),
            valid_logloss=metrics.logloss(labels, probabilities, weight),
            learning_rate=float(self.optimizer.param_groups[0]["lr"]),
        )
        point = replace(point, score=validation_score(point))
        self.curve.append(self.follow.followed(len(self.curve), point) if self.follow else point)
        return self.curve[-1]

    def _valid_logits(self) -> FloatArray:
        """Every worker scores every world-th row (padded to as many), then all get all logits."""
        share = math.ceil(len(self.valid) / self.world)
        index = np.minimum(np.arange(share) * self.world + self.rank, len(self.valid) - 1)
        local = self._logits(self.valid.take(index))
        gathered = [torch.empty_like(local) for _ in range(self.world)]
        dist.all_gather(gathered, local)
        logits: FloatArray = torch.stack(gathered, dim=1).flatten()[: len(self.valid)].numpy()
        return logits

    def _logits(self, rows: EncodedBatch) -> Tensor:
        self.model.eval()
        with torch.no_grad():
            parts = [self.model(dense, ids) for _, dense, ids in prediction_batches(rows)]
        return torch.cat(parts)

    def _keep(self, point: CurvePoint) -> Decision:
        """Decide, alike on every worker, as all saw the same AUC; gather weights that improved."""
        decision = self.schedule.update(point.score)
        if decision == "improved":
            self.best = gather(self.model, fields_of(self.plain))
            self.best_epoch = point.epoch
        return decision

    def _act(self, decision: Decision) -> None:
        """Lower the learning rate or stop on a plateau."""
        if decision == "stop":
            self.finished = True
        elif decision == "decay":
            scale_learning_rate(self.optimizer, self.config.optimizer.decay_factor)
            if self.config.optimizer.restart_from_best:
                scatter(self.model, self._broadcast_best(), fields_of(self.plain))
                if self.average is not None:
                    self.average.restart()

    def _broadcast_best(self) -> Weights:
        """The best weights, which rank 0 holds, on every worker."""
        weights = self.best or {k: v.clone() for k, v in self.plain.state_dict().items()}
        for name in sorted(weights):
            dist.broadcast(weights[name], src=0)
        return weights

    def _mean_over_workers(self, value: float) -> float:
        total = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(total)
        return float(total.item()) / self.world

    def publish(self) -> None:
        """Report the epoch to Ray, with a checkpoint from rank 0."""
        point = asdict(self.curve[-1])
        current = gather(self.model, fields_of(self.plain))
        if self.rank != 0:
            ray.train.report(point)
            return
        with tempfile.TemporaryDirectory() as folder:
            state = {
                "weights": current,
                "best": self.best,
                "best_epoch": self.best_epoch,
                "epoch": self.epoch,
                "finished": self.finished,
                "schedule": asdict(self.schedule),
                "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
                "curve": [asdict(p) for p in self.curve],
            }
            torch.save(state, os.path.join(folder, WEIGHTS))
            ray.train.report(point, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def resume(self, checkpoint: ray.train.Checkpoint | None) -> None:
        """Continue from the last epoch that was published; Adam's moments start afresh."""
        if checkpoint is None:
            return
        with checkpoint.as_directory() as folder:
            state = torch.load(os.path.join(folder, WEIGHTS), weights_only=True)
        scatter(self.model, state["weights"], fields_of(self.plain))
        if self.average is not None:
            self.average.restart()
        self.schedule = PlateauSchedule(**state["schedule"])
        self.curve = [CurvePoint(**point) for point in state["curve"]]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.epoch, self.finished = state["epoch"], state["finished"]
        set_learning_rate(self.optimizer, state["learning_rate"])

    def save(self, directory: Path) -> None:
        """Save the best weights as a plain learner, with the training curve."""
        self.learner.config = self.config
        network = self.learner.build_network(self.config)
        network.load_state_dict(self.best)
        self.learner.networks_ = [network.eval()]
        self.learner.save(directory)
        best_auc = auc_at(self.curve, self.best_epoch)
        report = FitReport(tuple(self.curve), 0.0, self.best_epoch, best_auc)
        (directory / FIT_REPORT).write_text(json.dumps(report.to_dict()), encoding="utf-8")
