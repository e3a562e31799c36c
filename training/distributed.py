"""One neural learner over several Ray workers: TorchTrainer and `DistributedModelParallel`.

Embedding tables are sharded (table-wise, column-wise) or replicated (data-parallel) over gloo; the
head is replicated. A global batch is split over the workers, so that the result is one worker's up
to the order of additions. The best weights are gathered back to plain ones after each gain, and
are also the checkpoint from which killed workers continue.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
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
from torchrec.distributed import DistributedModelParallel

from dynens.batch import EncodedBatch, FloatArray
from dynens.config.learner import LearnerConfig
from dynens.data.prepared import open_prepared
from dynens.errors import ConfigError, TrainingError
from dynens.models.base import PLAINLY, FitOptions, FitReport
from dynens.models.batches import TensorBatch, prediction_batches, row_batches, tensor_batch
from dynens.models.checkpoints import CHECKPOINT, TrainingState, Weights, save_tensors
from dynens.models.defaults import resolve_config, resolve_precision
from dynens.models.net_learner import NetLearner
from dynens.models.network import CTRNetwork
from dynens.models.optim import PlateauSchedule, autocast, learning_rate, set_learning_rate
from dynens.models.registry import MODELS
from dynens.models.training import BaseTrainer, weighted_bce
from dynens.run import FIT_REPORT, read_json, write_json
from training.precision import with_precision
from training.sharding import (
    Sharding,
    build_optimizer,
    clip_gradients,
    fields_of,
    gather,
    scatter,
    shard,
    share_of_batch,
)


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
    how: FitOptions = PLAINLY,
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
        how: what it goes by, but for an end or checkpoints of its own.

    Raises:
        ConfigError: the model is not neural, or the tables cannot be sharded so.
        TrainingError: training failed.
    """
    check_spread(config, spread)
    settled = with_precision(config, resolve_precision(config))  # here, and not by each worker
    arguments: dict[str, Any] = {"config": settled.model_dump(mode="json"), "seed": seed}
    arguments |= {"data_dir": data_dir, "out_dir": out_dir, "sharding": spread.sharding}
    arguments |= {"valid_rows": valid_rows, "how": how}
    trainer = _trainer(arguments, spread, storage, f"{config.display_name}-{seed}")
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as e:
        raise TrainingError(
            f"{config.display_name}: distributed training failed ({e}); see Ray's worker logs."
        ) from e
    return FitReport.from_dict(read_json(out_dir / FIT_REPORT))


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
    width = learner.head_class.embedding_width(config)
    if spread.sharding == "column_wise" and width % (4 * spread.num_workers):
        raise ConfigError(
            f"column_wise sharding over {spread.num_workers} workers needs embeddings of a "
            f"multiple of {4 * spread.num_workers} columns, and {config.model} has {width}; change "
            "embedding_dim or use table_wise."
        )


def _worker(arguments: dict[str, Any]) -> None:
    """What every Ray worker runs."""
    data = open_prepared(Path(arguments["data_dir"]))
    raw = LearnerConfig.model_validate(arguments["config"])
    # Sharded tables have kernels and an optimiser of their own.
    options = raw.optimizer.model_copy(update={"embedding_optimizer": "adam"})
    raw = raw.model_copy(update={"optimizer": options})
    train, valid = data.split("train"), data.split("valid")
    if arguments["valid_rows"] is not None:
        valid = valid.take(arguments["valid_rows"])
    config, seed = resolve_config(raw, data.layout, len(train)), arguments["seed"]
    torch.set_num_threads(config.num_threads)
    learner = MODELS[config.model](config, data.layout, data.stats, seed)
    assert isinstance(learner, NetLearner)
    torch.manual_seed(seed)
    network = learner.build_network(config)
    network.fit_stats(train.stats)
    is_first = dist.get_rank() == 0
    how = arguments["how"] if is_first else replace(arguments["how"], progress=None)
    trainer = RayTrainer(network, config, seed, arguments["sharding"], how)
    report = trainer.fit(train, valid)
    if is_first:
        members = trainer.state.snapshots or [trainer.state.best]
        learner.take(config, [learner.network_with(config, w) for w in members], train)
        learner.save(arguments["out_dir"])
        write_json(arguments["out_dir"] / FIT_REPORT, report.to_dict())


class ShardedTrainer(BaseTrainer[DistributedModelParallel, tuple[TensorBatch, float]]):
    """The loop in one of the workers of a process group, all of which take the same steps.

    A batch is this worker's rows of a global one and their share of its weight. All workers see the
    same loss and validation logits, so that they decide alike.

    Args:
        plain: the network, with the weights to begin with.
        config, seed, how: as for `BaseTrainer`.
        sharding: of the embedding tables.
    """

    def __init__(
        self,
        plain: CTRNetwork,
        config: LearnerConfig,
        seed: int,
        sharding: Sharding,
        how: FitOptions = PLAINLY,
    ) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.sharding, self.fields = sharding, fields_of(plain)
        model = shard(plain, sharding, self.world)
        scatter(model, plain.state_dict(), self.fields)
        super().__init__(model, config, seed, how)

    @property
    def batch_size(self) -> int:
        return self.options.batch_size or 4096

    def build_optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.network, self.config)

    def steps_per_epoch(self, train: EncodedBatch) -> int:
        """Without a last batch that has fewer rows than there are workers."""
        return (len(train) + self.batch_size - self.world) // self.batch_size

    def minibatches(
        self, train: EncodedBatch, rng: np.random.Generator, rows: npt.NDArray[np.int64] | None
    ) -> Iterator[tuple[TensorBatch, float]]:
        torch.manual_seed(torch.initial_seed() + self.rank)  # of dropout
        for index in row_batches(len(train), self.batch_size, rng, rows):
            if len(index) >= self.world:
                mine = index[self.rank :: self.world]
                share = share_of_batch(mine, index, train.sample_weight, self.world)
                yield tensor_batch(train, mine), share

    def loss(self, batch: tuple[TensorBatch, float]) -> Tensor:
        rows, share = batch
        assert rows.labels is not None
        with autocast(self.options.precision, self.device):
            logits = self.network(rows.dense, rows.ids, rows.stats)
        return share * weighted_bce(logits, rows.labels, rows.sample_weight)

    def train_step(self, batch: tuple[TensorBatch, float]) -> float:
        """One step; returns the loss of the global batch."""
        total = torch.tensor(super().train_step(batch), dtype=torch.float64)
        dist.all_reduce(total)
        return total.item() / self.world

    def clip_gradients(self) -> None:
        clip_gradients(self.network, self.options.clip_norm, self.sharding)

    def validate(self, valid: EncodedBatch) -> FloatArray:
        """Every worker scores every world-th row (padded to as many), then all get all logits."""
        share = math.ceil(len(valid) / self.world)
        index = np.minimum(np.arange(share) * self.world + self.rank, len(valid) - 1)
        self.network.eval()
        with torch.no_grad():
            parts = [self.network(d, ids) for _, d, ids in prediction_batches(valid.take(index))]
        self.network.train()
        local = torch.cat(parts)
        gathered = [torch.empty_like(local) for _ in range(self.world)]
        dist.all_gather(gathered, local)
        logits: FloatArray = torch.stack(gathered, dim=1).flatten()[: len(valid)].numpy()
        return logits

    def weights(self) -> Weights:
        """Plain ones, complete on rank 0 only."""
        return gather(self.network, self.fields)

    def load_weights(self, weights: Weights) -> None:
        """Those of rank 0 on every worker."""
        for name in sorted(weights):
            dist.broadcast(weights[name], src=0)
        scatter(self.network, weights, self.fields)

    def to_save(self) -> dict[str, Any]:
        return {
            "network": self.weights(),
            "learning_rate": learning_rate(self.optimizer),
            "schedule": asdict(self.schedule),
            "state": self.state.to_dict(),
        }

    def load(self, data: dict[str, Any]) -> None:
        """Take back what `to_save` gave; Adam's moments and the average start afresh."""
        self.load_weights(data["network"])
        if self.average is not None:
            self.average.restart()
        self.schedule = PlateauSchedule(**data["schedule"])
        self.state = TrainingState.from_dict(data["state"])
        set_learning_rate(self.optimizer, data["learning_rate"])


class RayTrainer(ShardedTrainer):
    """One whose checkpoints are Ray's."""

    def save(self) -> None:
        """Report the epoch to Ray, with a checkpoint from rank 0."""
        point, data = asdict(self.state.curve[-1]), self.to_save()
        if self.rank != 0:
            ray.train.report(point)
            return
        with tempfile.TemporaryDirectory() as folder:
            save_tensors(data, Path(folder) / CHECKPOINT)
            ray.train.report(point, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def resume(self) -> None:
        """Continue from the last epoch that was reported."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                self.load(torch.load(Path(folder) / CHECKPOINT, weights_only=True))
