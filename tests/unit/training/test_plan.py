"""Which stages a run has and which may start."""

from pathlib import Path

import pytest

from dynens.config.base import validate
from dynens.config.run import RunConfig, StudentSearchConfig, load_run_config
from dynens.errors import ConfigError
from dynens.rules import LabelRule
from dynens.run import RunDirectory, write_json
from dynens.schema import DatasetConfig, FeatureSchema
from training.pipeline import fit
from training.plan import DONE, check_cores, finished_stages, plan, ready


def stages(tmp_path: Path):
    return plan(RunConfig(), RunDirectory(tmp_path), cluster_cpus=2)


def names(specs) -> list[str]:
    return [spec.name for spec in specs]


def test_learners_and_baseline_run_side_by_side_once_data_is_prepared(tmp_path: Path) -> None:
    specs = stages(tmp_path)
    assert names(ready(specs, set(), set())) == ["prepare"]
    waiting = names(ready(specs, {"prepare"}, {"learner:ipnn"}))
    assert "learner:xgboost" in waiting
    assert "architecture" in waiting
    assert "baseline" not in waiting
    assert "baseline" in names(ready(specs, {"prepare", "architecture"}, set()))
    assert "learner:ipnn" not in waiting
    assert "ensemble" not in waiting


def test_needs_name_earlier_stages_and_fit_the_cluster(tmp_path: Path) -> None:
    seen: set[str] = set()
    for spec in plan(RunConfig(), RunDirectory(tmp_path), cluster_cpus=1):
        assert set(spec.needs) <= seen
        assert spec.num_cpus == 1
        seen.add(spec.name)


def test_a_search_waits_for_the_teacher(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for trials, needs in ((0, ("prepare",)), (5, ("ensemble",))):
        config = RunConfig(student_search=StudentSearchConfig(trials=trials))
        specs = {spec.name: spec for spec in plan(config, run, cluster_cpus=2)}
        assert specs["architecture"].needs == needs


def test_a_stage_after_a_lost_one_runs_again(tmp_path: Path) -> None:
    specs = stages(tmp_path)
    for spec in specs:
        if spec.name != "learner:ipnn":
            spec.directory.mkdir(parents=True, exist_ok=True)
            (spec.directory / DONE).write_text("{}")
    finished = finished_stages(specs)
    assert "learner:xgboost" in finished
    assert not {"learner:ipnn", "ensemble", "student", "bundle"} & finished


def test_a_stage_made_from_an_earlier_making_of_another_runs_again(tmp_path: Path) -> None:
    specs = stages(tmp_path)
    for spec in specs:
        mark = {"identity": spec.name, "made_from": {need: need for need in spec.needs}}
        write_json(spec.directory / DONE, mark)
    assert finished_stages(specs) == {spec.name for spec in specs}
    again = next(spec for spec in specs if spec.name == "learner:ipnn")
    write_json(again.directory / DONE, {"identity": "new", "made_from": {"prepare": "prepare"}})
    finished = finished_stages(specs)
    assert {"learner:ipnn", "learner:xgboost", "baseline"} <= finished
    assert not {"ensemble", "student", "router", "bundle"} & finished


def test_a_directory_without_its_mark_is_unfinished(tmp_path: Path) -> None:
    specs = stages(tmp_path)
    specs[0].directory.mkdir(parents=True)
    assert finished_stages(specs) == set()


def test_every_peer_needs_a_core() -> None:
    config = validate(RunConfig, {"distill": {"peers": {"count": 3}}}, "test")
    check_cores(config, 3)
    with pytest.raises(ConfigError, match=r"peers.count is 3 but Ray has 2 cores.* lower it"):
        check_cores(config, 2)


def test_the_width_that_a_run_settles_is_not_given(tmp_path: Path) -> None:
    dataset = DatasetConfig(files=("no.csv",), features=FeatureSchema(label=LabelRule(column="y")))
    config = load_run_config(None, ["student.product_width=8"])
    with pytest.raises(ConfigError, match=r"student.product_width is 8, but .*; leave it out"):
        fit(dataset, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_several_workers_know_no_time_limit(tmp_path: Path) -> None:
    dataset = DatasetConfig(files=("no.csv",), features=FeatureSchema(label=LabelRule(column="y")))
    config = load_run_config(None, ["time_limit_min=5", "ray.net_workers=2"])
    with pytest.raises(ConfigError, match=r"time_limit_min is 5 but ray.net_workers is 2, .* out"):
        fit(dataset, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
