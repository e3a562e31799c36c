"""The training loop over two real gloo processes against the same loop in one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dynens.config.learner import LearnerConfig, OptimizerConfig
from dynens.models.base import FitOptions, FitProgress
from dynens.models.defaults import resolve_config
from dynens.models.dnn import DNNHead
from dynens.models.network import CTRNetwork
from dynens.models.training import Trainer
from tests.unit.models.tables import tiny_table
from tests.unit.training.test_sharding import free_port
from training.distributed import ShardedTrainer

TABLE = tiny_table(multi_valued=True)
COURSES: dict[str, dict[str, Any]] = {
    "plateau": {"patience": 1, "learning_rate": 0.3, "max_epochs": 6},
    "cosine of a bootstrap": {"schedule": "cosine", "evaluations_per_epoch": 2},
    "snapshots": {"snapshots": 2, "epochs_per_snapshot": 1},
}


def config_of(course: str) -> LearnerConfig:
    options = {"max_epochs": 2, "batch_size": 64, "precision": "fp32", "learning_rate": 0.01}
    optimizer = OptimizerConfig(**{**options, "embedding_rate_factor": 1.0, **COURSES[course]})
    config = LearnerConfig(
        embedding_dim=4,
        hidden_units=(8,),
        dropout=0.0,
        bootstrap=course.endswith("bootstrap"),
        optimizer=optimizer,
    )
    return resolve_config(config, TABLE.layout, len(TABLE.train))


def network_of(config: LearnerConfig) -> CTRNetwork:
    torch.manual_seed(0)
    network = CTRNetwork(TABLE.layout, config, DNNHead, TABLE.stats)
    network.fit_stats(TABLE.train.stats)
    return network


def sharded(config: LearnerConfig, progress: list[FitProgress]) -> ShardedTrainer:
    return ShardedTrainer(
        network_of(config), config, 0, "table_wise", FitOptions(progress=progress.append)
    )


def train(rank: int, port: int, folder: str) -> None:
    """Runs in each of two processes; rank 0 writes what the tests look at."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2"
    )
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for course in COURSES:
        told: list[FitProgress] = []
        trainer = sharded(config_of(course), told)
        report = trainer.fit(TABLE.train, TABLE.valid)
        found[course] = (report, trainer.state, [progress.fraction for progress in told])
    config = config_of("plateau")
    short = config.optimizer.model_copy(update={"max_epochs": 2})
    killed = sharded(config.model_copy(update={"optimizer": short}), [])
    killed.fit(TABLE.train, TABLE.valid)
    resumed = sharded(config, [])
    resumed.load(killed.to_save())
    found["resumed"] = (resumed.fit(TABLE.train, TABLE.valid), resumed.state, [])
    if rank == 0:
        torch.save(found, Path(folder) / "found.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("sharded")
    mp.spawn(train, args=(free_port(), str(folder)), nprocs=2)
    loaded: dict[str, Any] = torch.load(folder / "found.pt", weights_only=False)
    return loaded


@pytest.mark.parametrize("course", COURSES)
def test_two_workers_go_the_course_of_one(found: dict[str, Any], course: str) -> None:
    """Up to the order of additions."""
    config = config_of(course)
    one = Trainer(network_of(config), config, 0)
    expected = one.fit(TABLE.train, TABLE.valid)
    report, state, told = found[course]
    for name in ("epoch", "learning_rate"):
        assert [getattr(p, name) for p in report.curve] == pytest.approx(
            [getattr(p, name) for p in expected.curve]
        )
    for name in ("train_loss", "valid_auc", "valid_logloss"):
        np.testing.assert_allclose(
            [getattr(p, name) for p in report.curve],
            [getattr(p, name) for p in expected.curve],
            atol=2e-3,
        )
    assert report.best_epoch == expected.best_epoch
    assert report.seconds > 0
    assert len(told) == len(report.curve)
    members = [state.best, *state.snapshots]
    for mine, other in zip(members, [one.state.best, *one.state.snapshots], strict=True):
        assert mine.keys() == other.keys()
        for name, value in other.items():
            torch.testing.assert_close(mine[name], value, atol=5e-3, rtol=0)


def test_a_plateau_was_met_on_the_way(found: dict[str, Any]) -> None:
    report, _, told = found["plateau"]
    rates = [point.learning_rate for point in report.curve]
    assert rates[-1] < rates[0]
    assert told == sorted(told)


def test_workers_go_on_from_what_was_saved(found: dict[str, Any]) -> None:
    report, state, _ = found["resumed"]
    whole, _, _ = found["plateau"]
    assert report.curve[:2] == whole.curve[:2]
    assert [point.epoch for point in report.curve] == list(range(1, len(report.curve) + 1))
    assert len(report.curve) > 2
    assert state.best
