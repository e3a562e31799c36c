"""Several Ray workers with sharded tables against one process, and a killed worker."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from dynens import metrics
from dynens.config.learner import LearnerConfig, OptimizerConfig
from dynens.data.datasets import synthetic
from dynens.data.prepare import prepare
from dynens.data.prepared import PreparedData
from dynens.errors import ConfigError
from dynens.models.base import FitReport
from dynens.models.registry import build_learner, load_learner
from training.distributed import DistributedConfig, fit_distributed
from training.sharding import Sharding

CONFIG = LearnerConfig(
    model="dcnv2",
    embedding_dim=8,
    hidden_units=(16,),
    dropout=0.0,
    optimizer=OptimizerConfig(
        max_epochs=3, batch_size=256, precision="fp32", embedding_l2=1e-4, max_decays=3
    ),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("synthetic")
    (folder / "raw").mkdir()
    synthetic.write(synthetic.SyntheticConfig(num_rows=6000), folder / "raw")
    return prepare(synthetic.dataset(folder / "raw"), folder / "prepared", seed=0)


@pytest.fixture(scope="module")
def single(data: PreparedData) -> FitReport:
    learner = build_learner(CONFIG, data.layout, data.stats, 0)
    return learner.fit(data.split("train"), data.split("valid"))


def fit(data: PreparedData, out: Path, sharding: Sharding, config: LearnerConfig) -> FitReport:
    spread = DistributedConfig(num_workers=2, sharding=sharding)
    return fit_distributed(
        config, data.directory, out / "learner", seed=0, spread=spread, storage=out / "storage"
    )


def test_two_workers_train_as_one(data: PreparedData, single: FitReport, tmp_path: Path) -> None:
    report = fit(data, tmp_path, "table_wise", CONFIG)
    one = [point.valid_auc for point in single.curve]
    two = [point.valid_auc for point in report.curve]
    # Same weights, same batches, no dropout: only the order of additions differs.
    np.testing.assert_allclose(two, one, atol=5e-4)
    plain = load_learner(tmp_path / "learner")
    valid = data.split("valid")
    assert valid.labels is not None
    reached = metrics.auc(valid.labels, plain.predict_logits(valid))
    assert reached == pytest.approx(report.best_auc, abs=1e-5)


def test_killed_worker_continues_from_its_checkpoint(data: PreparedData, tmp_path: Path) -> None:
    killed = threading.Event()
    stop = threading.Event()

    def kill_after_first_checkpoint() -> None:
        while not stop.wait(0.05):
            if any(tmp_path.glob("storage/*/checkpoint_*")):
                workers = [
                    process.pid
                    for process in psutil.Process().children(recursive=True)
                    if "RayTrainWorker" in " ".join(process.cmdline())
                ]
                if workers:
                    os.kill(workers[0], signal.SIGKILL)
                    killed.set()
                    return

    killer = threading.Thread(target=kill_after_first_checkpoint)
    killer.start()
    options = CONFIG.optimizer.model_copy(update={"max_epochs": 6, "max_decays": 6})
    config = CONFIG.model_copy(update={"optimizer": options})
    try:
        report = fit(data, tmp_path, "table_wise", config)
    finally:
        stop.set()
        killer.join()
    assert killed.is_set()
    assert [point.epoch for point in report.curve] == list(range(1, 7))
    assert report.best_auc > 0.6


def test_trees_have_no_workers(data: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="xgboost is not neural"):
        fit(data, tmp_path, "table_wise", LearnerConfig(model="xgboost"))


def test_column_wise_names_the_size_it_cannot_cut(data: PreparedData, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"embedding_dim": 6})
    with pytest.raises(ConfigError, match="multiple of 8 columns, and dcnv2 has 6"):
        fit(data, tmp_path, "column_wise", config)
