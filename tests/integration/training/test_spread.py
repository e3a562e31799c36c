"""A run whose files and networks are spread over Ray workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dynens.bundle import load_bundle
from dynens.config.base import validate
from dynens.config.run import RunConfig
from dynens.data.datasets.presets import dataset_from_files
from dynens.data.prepare import prepare
from dynens.data.prepared import open_prepared
from dynens.errors import ConfigError
from dynens.run import read_json
from tests.unit.training.pool import SETTINGS, clicks
from training.pipeline import fit


def spread(folder: Path, **ray: int) -> RunConfig:
    for i in range(2):
        clicks(folder / f"clicks-{i}.parquet")
    learners = {name: SETTINGS["learners"][name] for name in ("dnn", "trees")}
    settings = {
        **SETTINGS,
        "learners": learners,
        "ensemble": {"size": 2, "weight_methods": ["uniform"]},
        "ray": {"num_cpus": 2, **ray},
    }
    return validate(RunConfig, settings, "test")


def test_a_run_may_be_spread_over_workers(tmp_path: Path) -> None:
    config = spread(tmp_path, data_workers=2, net_workers=2)
    dataset = dataset_from_files(str(tmp_path / "clicks-*.parquet"), label="click")
    run = fit(dataset, config, tmp_path / "run")
    assert "dnn" in load_bundle(run.root).manifest.members
    together = open_prepared(run.data).split("train")
    alone = prepare(dataset, tmp_path / "alone", seed=config.seed).split("train")
    np.testing.assert_array_equal(together.dense, alone.dense)
    np.testing.assert_array_equal(together.ids, alone.ids)
    # What workers of a group train, epoch after epoch, and no single process does.
    report = read_json(run.learner("dnn") / "fit.json")
    assert report["best_auc"] > 0.6


def test_what_workers_cannot_do_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    config = spread(tmp_path, net_workers=2)
    dnn = config.learners["dnn"].model_copy(update={"branches": 2})
    config = config.model_copy(update={"learners": {**config.learners, "dnn": dnn}})
    dataset = dataset_from_files(str(tmp_path / "clicks-*.parquet"), label="click")
    with pytest.raises(ConfigError, match="branches is 2; workers would train"):
        fit(dataset, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_workers_that_no_cluster_holds_are_refused(tmp_path: Path) -> None:
    config = spread(tmp_path, net_workers=3)
    dataset = dataset_from_files(str(tmp_path / "clicks-*.parquet"), label="click")
    with pytest.raises(ConfigError, match=r"ray.net_workers is 3 but Ray has 2 cores"):
        fit(dataset, config, tmp_path / "run")
