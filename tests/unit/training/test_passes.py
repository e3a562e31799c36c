"""Which runs train a second time, and where their passes lie."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from dynens.config.base import validate
from dynens.config.run import RunConfig
from dynens.data.datasets.presets import dataset_from_files
from dynens.data.prepare import prepare
from dynens.data.prepared import ALSO_VALID, VALID_ROWS, PreparedData, open_prepared
from dynens.errors import BadInputError, BundleError, ConfigError, DataError
from dynens.run import FIT_REPORT, RunDirectory, write_json, write_text
from dynens.schema import DatasetConfig, SplitConfig
from tests.unit.data.tables import mixed_table, written
from training import pipeline
from training.passes import begin_first_pass, check_first_pass, is_wanted, passes
from training.pipeline import fit
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


def test_what_followed_another_first_pass_goes_but_for_the_rows(run: RunDirectory) -> None:
    config = RunConfig()
    begin_first_pass(run, config)
    for stage in plan(config, run.held_out, 1):
        write_json(stage.directory / DONE, {"stage": stage.name})
    learner = run.learner(next(iter(config.learners)))
    for directory in (run.data, learner, run.baseline, run.student, run.router):
        write_json(directory / DONE, {"stage": directory.name})
    checkpoint = run.work / "student" / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    passes(config, run, 1)
    assert run.student.exists()
    assert checkpoint.exists()
    (run.held_out.student / DONE).unlink()
    passes(config, run, 1)
    for directory in (run.data, learner, run.baseline):
        assert (directory / DONE).is_file()
    for path in (run.student, run.router, checkpoint):
        assert not path.exists()


@pytest.mark.parametrize("is_told", [True, False])
def test_a_student_whose_end_nobody_wrote_down_is_trained_again(
    run: RunDirectory, is_told: bool
) -> None:
    """As those of earlier versions."""
    config = RunConfig()
    for stage in plan(config, run, 1):
        write_json(stage.directory / DONE, {"stage": stage.name})
    point = {"epoch": 1.0, "valid_auc": 0.7} | ({"score": -0.1} if is_told else {})
    write_json(run.student / FIT_REPORT, {"curve": [point]})
    begin_first_pass(run, config)
    assert (run.held_out.baseline / DONE).is_file()
    for stage in (run.held_out.student, run.held_out.router):
        assert (stage / DONE).is_file() is is_told


def test_a_second_pass_without_its_first_is_refused(run: RunDirectory) -> None:
    check_first_pass(run)
    begin_first_pass(run, RunConfig())
    (run.data).mkdir()
    (run.data / VALID_ROWS).touch()
    check_first_pass(run)
    shutil.rmtree(run.first_pass)
    with pytest.raises(BundleError, match=r"first_pass is missing.* fit anew"):
        check_first_pass(run)


@pytest.fixture
def log(tmp_path: Path) -> DatasetConfig:
    return dataset_from_files(written(tmp_path, mixed_table(600)), label="click")


def fit_without_training(
    log: DatasetConfig, out: Path, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> int:
    """How many passes there are to execute."""
    executed: list[RunDirectory] = []
    monkeypatch.setattr(pipeline, "cluster", lambda _: contextlib.nullcontext(2))
    monkeypatch.setattr(pipeline, "settle_precision", lambda run, config: config)
    monkeypatch.setattr(pipeline, "_execute", lambda run, *_: executed.append(run))
    monkeypatch.setattr(pipeline, "warn_of_ranking", lambda *_: None)
    for name, value in more.items():
        monkeypatch.setattr(pipeline, name, value)
    fit(log, RunConfig(), out, resume=out.exists())
    return len(executed)


def test_both_passes_are_of_the_same_rows(
    log: DatasetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert fit_without_training(log, out, monkeypatch) == 2
    first, last = (
        open_prepared(run.data) for run in (RunDirectory(out).held_out, RunDirectory(out))
    )
    assert last.fingerprint == first.fingerprint + ALSO_VALID
    Path(log.files[0]).unlink()
    assert fit_without_training(log, out, monkeypatch) == 2, "rows are there already"


def test_a_table_that_changes_between_the_passes_is_refused(
    log: DatasetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rewritten(run: RunDirectory, config: RunConfig) -> None:
        begin_first_pass(run, config)
        written(tmp_path, mixed_table(600, seed=1))

    out = tmp_path / "run"
    with pytest.raises(DataError, match=r"changed while .* nothing writes to them"):
        fit_without_training(log, out, monkeypatch, begin_first_pass=rewritten)
    assert not out.exists()


def test_a_table_that_is_gone_before_the_second_pass_read_it_is_told(
    log: DatasetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(run: RunDirectory, config: RunConfig) -> None:
        begin_first_pass(run, config)
        Path(log.files[0]).unlink()

    with pytest.raises(DataError, match=r"\(refit\) reads the files again: .*not exist"):
        fit_without_training(log, tmp_path / "run", monkeypatch, begin_first_pass=gone)


def test_bad_input_of_a_second_pass_leaves_what_it_trained(
    log: DatasetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    mark = RunDirectory(out).learner("dcnv2") / DONE

    def trains_and_refuses(run: RunDirectory, *_: object) -> None:
        if run.root == out:
            write_json(mark, {})
            raise ConfigError("no room")

    with pytest.raises(ConfigError, match="no room"):
        fit_without_training(log, out, monkeypatch, _execute=trains_and_refuses)
    assert mark.is_file()


def test_the_first_pass_is_no_run_of_its_own(
    log: DatasetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    fit_without_training(log, out, monkeypatch)
    with pytest.raises(BadInputError, match=r"first_pass lies inside the run"):
        fit_without_training(log, out / "first_pass", monkeypatch)
