"""Runs that the accuracy benchmark finds finished."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.accuracy import best_possible, run_once
from benchmarks.common import with_held_out_rows
from dynens.config.run import RunConfig, load_run_config
from dynens.data.datasets.presets import dataset_from_files
from dynens.errors import BadInputError
from dynens.schema import DatasetConfig
from tests.unit.training.pool import clicks


def table_of(folder: Path) -> DatasetConfig:
    return dataset_from_files(str(folder / "clicks.parquet"), label="click")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    clicks(tmp_path / "clicks.parquet")
    given = {
        "data": table_of(tmp_path).model_dump(mode="json"),
        **RunConfig().model_dump(mode="json"),
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(given))
    (tmp_path / "report").mkdir()
    (tmp_path / "report/metrics.json").write_text(json.dumps({"seed": 1}))
    return tmp_path


def test_a_finished_run_is_taken_where_its_settings_are_those_asked_for(finished: Path) -> None:
    for settings in ([], ["ray.num_cpus=1"]):
        config = load_run_config(None, ["refit=false", *settings])
        assert run_once(table_of(finished), config, finished) == {"seed": 1}


@pytest.mark.parametrize("setting", ["seed=2", "distill.alpha.start=1", "refit=true"])
def test_figures_of_other_settings_are_not_given_for_these(finished: Path, setting: str) -> None:
    with pytest.raises(BadInputError, match=r"other settings.* --runs"):
        run_once(table_of(finished), load_run_config(None, ["refit=false", setting]), finished)


def test_a_second_pass_counts_as_another_setting(finished: Path) -> None:
    (finished / "first_pass").mkdir()
    (finished / "first_pass/config.yaml").write_bytes((finished / "config.yaml").read_bytes())
    with pytest.raises(BadInputError, match=r"other settings.* --runs"):
        run_once(table_of(finished), load_run_config(None, ["refit=false"]), finished)
    with pytest.raises(BadInputError, match=r"trained on its validation rows.* refit=false"):
        with_held_out_rows(finished)


def test_true_probabilities_are_told_where_they_are_known(finished: Path) -> None:
    assert best_possible(table_of(finished)) == {}
    (finished / "truth.json").write_text(json.dumps({"auc": 0.76543, "rows": 9}))
    assert best_possible(table_of(finished)) == {"best_possible_auc": 0.76543}
