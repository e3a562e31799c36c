"""How a run starts and resumes."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.config.base import validate
from dynens.config.run import RayConfig, RunConfig
from dynens.data.fingerprint import FORMAT
from dynens.errors import BadInputError, BundleError, ConfigError, DataError, TrainingError
from dynens.rules import LabelRule
from dynens.run import RunDirectory
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec
from training import pipeline, stage
from training.context import StageContext
from training.pipeline import Watcher, _prepare_here, fit
from training.plan import DONE, StageSpec, finished_stages, plan
from training.stage import PROGRESS_FILE, run_stage, work_directory

FEATURES = FeatureSchema(label=LabelRule(column="y"), fields=(FieldSpec(name="c"),))


class Heard(Watcher):
    """Keeps what it was warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warned(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"c": ["a", "b"] * 60, "y": [0, 1, 1] * 40}), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def dataset_of(table: Path, features: FeatureSchema = FEATURES) -> DatasetConfig:
    return DatasetConfig(files=(str(table),), features=features)


def started(dataset: DatasetConfig, out: Path, *, resume: bool) -> list[str]:
    """Prepare the data as `fit` does; what was warned of."""
    run, config, heard = RunDirectory(out), RunConfig(), Heard()
    settings = {"data": dataset.model_dump(mode="json"), **config.model_dump(mode="json")}
    run.start(settings, resume=resume)
    _prepare_here(run, config, heard)
    return heard.warnings


def test_resuming_needs_the_files_to_be_the_same_or_gone(table: Path, tmp_path: Path) -> None:
    dataset, out = dataset_of(table), tmp_path / "run"
    started(dataset, out, resume=False)
    assert started(dataset, out, resume=True) == []
    pq.write_table(pa.table({"c": ["a", "b"] * 60, "y": [0, 1, 0] * 40}), table)
    with pytest.raises(DataError, match=r"have changed since .* choose another --out"):
        started(dataset, out, resume=True)
    table.unlink()
    (warning,) = started(dataset, out, resume=True)
    assert "continues on the rows encoded earlier" in warning
    assert "t.parquet does not exist" in warning


def test_rows_of_another_version_are_named_as_such(table: Path, tmp_path: Path) -> None:
    dataset, out = dataset_of(table), tmp_path / "run"
    started(dataset, out, resume=False)
    manifest = out / "data" / "prepared.json"
    manifest.write_text(manifest.read_text().replace(f'"format": {FORMAT}', '"format": 1'))
    with pytest.raises(DataError, match=r"data was encoded by another version of dynens; choose"):
        started(dataset, out, resume=True)


def test_a_class_that_validation_hardly_holds_is_warned_of(table: Path, tmp_path: Path) -> None:
    labels = [i % 12 == 0 for i in range(400)]
    pq.write_table(pa.table({"c": ["a", "b"] * 200, "y": labels}), table)
    (warning,) = started(dataset_of(table), tmp_path / "few", resume=False)
    assert "validation part has only 5 positive rows" in warning
    pq.write_table(pa.table({"c": ["a", "b"] * 200, "y": [0, 1] * 200}), table)
    assert started(dataset_of(table), tmp_path / "enough", resume=False) == []


@pytest.mark.parametrize("existed", [True, False])
def test_bad_input_leaves_a_new_or_empty_folder_as_it_was(
    table: Path, tmp_path: Path, existed: bool
) -> None:
    out = tmp_path / "run"
    if existed:
        out.mkdir()
    wrong = FEATURES.model_copy(update={"label": LabelRule(column="nope")})
    with pytest.raises(DataError, match="no label column 'nope'"):
        fit(dataset_of(table, wrong), RunConfig(), out)
    assert out.exists() == existed
    assert not existed or not any(out.iterdir())


def test_bad_input_leaves_no_folder_above_the_run(table: Path, tmp_path: Path) -> None:
    wrong = FEATURES.model_copy(update={"label": LabelRule(column="nope")})
    with pytest.raises(DataError, match="no label column 'nope'"):
        fit(dataset_of(table, wrong), RunConfig(), tmp_path / "new" / "deep" / "run")
    assert [path.name for path in tmp_path.iterdir()] == [table.name]


def test_a_file_damaged_on_the_way_does_not_undo_the_run(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise BundleError("valid.arrow is missing or damaged")

    monkeypatch.setattr(pipeline, "_rare_classes", damaged)
    with pytest.raises(BundleError, match="damaged"):
        fit(dataset_of(table), RunConfig(), tmp_path / "run")
    assert (tmp_path / "run" / "data" / "train.arrow").is_file()


@pytest.mark.parametrize("trained", [True, False])
def test_bad_input_that_a_late_stage_finds_leaves_what_was_trained(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: bool
) -> None:
    mark = tmp_path / "run" / "learners" / "dnn" / DONE

    def refuses(*_: object) -> None:
        mark.parent.mkdir(parents=True)
        if trained:
            mark.write_text("{}")
        raise ConfigError("no 3 learners cost at most 0.1 µs")

    monkeypatch.setattr(pipeline, "cluster", lambda _: contextlib.nullcontext(2))
    monkeypatch.setattr(pipeline, "settle_precision", lambda run, config: config)
    monkeypatch.setattr(pipeline, "_execute", refuses)
    with pytest.raises(ConfigError, match="no 3 learners"):
        fit(dataset_of(table), RunConfig(), tmp_path / "run")
    assert mark.exists() == trained
    assert (tmp_path / "run" / "config.yaml").exists() == trained


def test_peers_without_cores_are_refused_before_training(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = validate(RunConfig, {"distill": {"peers": {"count": 3}}}, "test")
    monkeypatch.setattr(pipeline, "cluster", lambda _: contextlib.nullcontext(2))
    with pytest.raises(ConfigError, match=r"peers.count is 3 but Ray has 2 cores"):
        fit(dataset_of(table), config, tmp_path / "run")


def test_a_run_may_go_on_with_fewer_cores_but_not_with_other_settings(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int | None] = []

    def stopped(config: RayConfig) -> None:
        given.append(config.num_cpus)
        raise TrainingError("stopped")

    monkeypatch.setattr(pipeline, "cluster", stopped)
    dataset, out = dataset_of(table), tmp_path / "run"
    with pytest.raises(TrainingError):
        fit(dataset, RunConfig(), out)
    with pytest.raises(TrainingError):
        fit(dataset, RunConfig(ray=RayConfig(num_cpus=1)), out, resume=True)
    assert given == [None, 1]
    with pytest.raises(BadInputError, match="differs from the configuration given now"):
        fit(dataset, RunConfig(seed=2), out, resume=True)


def test_going_on_with_a_run_that_is_not_there_says_so(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Heard(pipeline.Watcher):
        def __init__(self) -> None:
            self.warnings: list[str] = []

        def warned(self, text: str) -> None:
            self.warnings.append(text)

    def stopped(_: RayConfig) -> None:
        raise TrainingError("stopped")

    monkeypatch.setattr(pipeline, "cluster", stopped)
    said = []
    for _ in range(2):
        watcher = Heard()
        with pytest.raises(TrainingError):
            fit(dataset_of(table), RunConfig(), tmp_path / "run", resume=True, watcher=watcher)
        said.append(any("no run in" in text for text in watcher.warnings))
    assert said == [True, False]


def test_a_run_that_another_process_works_on_is_left_alone(table: Path, tmp_path: Path) -> None:
    dataset, out = dataset_of(table), tmp_path / "run"
    started(dataset, out, resume=False)
    with RunDirectory(out).locked(), pytest.raises(BadInputError, match="another dynens works on"):
        fit(dataset, RunConfig(), out, resume=True)
    assert (out / "data" / "train.arrow").is_file()


def test_bad_input_leaves_an_earlier_run_alone(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    started(dataset_of(table), out, resume=False)
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(BadInputError, match="already holds a run"):
        fit(dataset_of(table), RunConfig(), out)
    assert sorted(path.name for path in out.iterdir()) == before


def test_a_stage_follows_the_settings_of_ray_that_a_run_goes_on_with(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def stopped(context: StageContext) -> None:
        seen.append(context.config.ray.data_workers)
        raise TrainingError("stopped")

    monkeypatch.setattr(stage, "_prepare_data", stopped)
    for workers, resume in ((1, False), (2, True)):
        config = RunConfig(ray=RayConfig(data_workers=workers))
        with pytest.raises(TrainingError, match="stopped"):
            fit(dataset_of(table), config, tmp_path / "run", resume=resume)
    assert seen == [1, 2]


def test_rows_of_other_files_undo_what_was_trained(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path / "run")
    specs = plan(RunConfig(), run, 1)
    started(dataset_of(table), run.root, resume=False)
    with monkeypatch.context() as patched:
        patched.setattr(stage, "_stage_function", lambda *_: lambda context: None)
        run_stage(specs[1], run, RunConfig())
    done = {specs[0].name, specs[1].name}
    for labels, finished in (([0, 1, 1], done), ([0, 1, 0], {specs[0].name})):
        pq.write_table(pa.table({"c": ["a", "b"] * 60, "y": labels * 40}), table)
        shutil.rmtree(run.data)
        started(dataset_of(table), run.root, resume=True)
        assert finished_stages(specs) == finished


def test_a_failed_stage_leaves_alone_what_ended_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[str] = []
    ended = ["b", "a"]  # of learners of which "c" still runs

    def wait(
        tasks: list[str], num_returns: int, timeout: float | None = None
    ) -> tuple[list[str], list[str]]:
        done = [task for task in ended if task in tasks][:num_returns]
        return done, [task for task in tasks if task not in done]

    def failed(*_: object) -> None:
        raise TrainingError("b failed")

    monkeypatch.setattr(pipeline.ray, "wait", wait)
    monkeypatch.setattr(pipeline.ray, "cancel", lambda task, force: forced.append(task))
    monkeypatch.setattr(pipeline, "_judging_labels", lambda *_: np.zeros(2))
    monkeypatch.setattr(pipeline, "_submit", lambda run, config, spec: spec.name)
    monkeypatch.setattr(pipeline, "_result", failed)
    specs = [StageSpec(name, tmp_path / name, ()) for name in "abc"]
    with pytest.raises(TrainingError, match="b failed"):
        pipeline._execute(RunDirectory(tmp_path), RunConfig(), specs, Watcher(), None)
    assert forced == ["c"]


@pytest.mark.parametrize(("rows", "told"), [(200, " ± 0.034"), (40_000, "")])
def test_an_auc_of_few_rows_is_told_with_its_error(tmp_path: Path, rows: int, told: str) -> None:
    run, notes = RunDirectory(tmp_path), []
    stage = StageSpec("learner:lr", tmp_path, ())
    folder = work_directory(run, stage.name)
    folder.mkdir(parents=True)
    point = {"epoch": 2.0, "fraction": 0.5, "valid_auc": 0.75}
    (folder / PROGRESS_FILE).write_text(json.dumps(point) + "\n")

    class Noting(Watcher):
        def progress(self, stage: StageSpec, fraction: float, note: str) -> None:
            notes.append(note)

    pipeline._report_progress(run, stage, Noting(), np.arange(rows, dtype=np.float32) % 2)
    assert notes == [f"epoch 2, valid AUC 0.7500{told}, best 0.7500"]
