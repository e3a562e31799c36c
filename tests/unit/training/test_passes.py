"""Which runs train a second time, and where their passes lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynens.config.base import validate
from dynens.config.run import RunConfig
from dynens.data.datasets.presets import dataset_from_files
from dynens.data.prepare import prepare
from dynens.data.prepared import PreparedData
from dynens.errors import ConfigError
from dynens.run import RunDirectory, write_json, write_text
from dynens.schema import SplitConfig
from tests.unit.data.tables import mixed_table, written
from training.passes import begin_first_pass, is_wanted, passes
from training.plan import DONE, plan

PEERS = {"distill": {"peers": {"count": 2}}}


def cut(tmp_path: Path, *, by: str = "auto", valid: bool = False) -> PreparedData:
    table = mixed_table(600)
    files = {"valid": written(tmp_path, table.slice(500), "v.parquet")} if valid else {}
    path = written(tmp_path, table.slice(0, 500 if valid else 600))
    config = dataset_from_files(path, label="click", split=SplitConfig(by=by), **files)
    return prepare(config, tmp_path / "data", seed=0)


@pytest.mark.parametrize(
    ("table", "settings", "wanted"),
    [
        ({}, {}, True),
        ({"by": "random"}, {}, False),
        ({"valid": True}, {}, False),
        ({}, {"refit": False}, False),
        ({"by": "random"}, {"refit": True}, True),
        ({"valid": True}, {"refit": True}, True),
        ({}, PEERS, False),
    ],
)
def test_rows_that_were_cut_by_time_are_trained_on_a_second_time(
    tmp_path: Path, table: dict[str, object], settings: dict[str, object], wanted: bool
) -> None:
    config = validate(RunConfig, settings, "test")
    assert is_wanted(config, cut(tmp_path, **table)) == wanted  # type: ignore[arg-type]


def test_what_no_second_training_can_follow_is_told() -> None:
    with pytest.raises(ConfigError, match=r"refit is true but distill\.peers\.count is 2"):
        validate(RunConfig, {"refit": True, **PEERS}, "test")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run whose rows are prepared, and one of whose learners is trained."""
    run = RunDirectory(tmp_path / "run")
    write_text(run.config, "seed: 1\n")
    for stage in plan(RunConfig(), run, 1)[:2]:
        write_json(stage.directory / DONE, {"stage": stage.name})
    return run


def test_what_was_done_becomes_the_first_pass(run: RunDirectory) -> None:
    config = RunConfig()
    before = passes(config, run, 2)
    assert [(place, stages[0].again) for place, stages in before] == [(run, False)]
    assert run.held_out is run
    begin_first_pass(run, config)
    assert not run.data.exists()
    (first, one), (second, two) = passes(config, run, 2)
    assert first.root == run.root / "first_pass" == run.held_out.root
    assert second is run
    assert (first.data / DONE).is_file()
    assert (first.learner(next(iter(config.learners))) / DONE).is_file()
    assert first.config.read_text() == run.config.read_text()
    assert [s.name for s in two] == [*(s.name for s in one), "bundle"]
    assert {s.again for s in one} == {False}
    assert {s.again for s in two} == {True}


def test_a_second_pass_goes_when_the_first_is_undone(run: RunDirectory) -> None:
    config = RunConfig()
    begin_first_pass(run, config)
    for stage in plan(config, run.held_out, 1):
        write_json(stage.directory / DONE, {"stage": stage.name})
    write_json(run.data / DONE, {"stage": "prepare"})
    passes(config, run, 1)
    assert (run.data / DONE).is_file()
    (run.held_out.student / DONE).unlink()
    passes(config, run, 1)
    assert not run.data.exists()
