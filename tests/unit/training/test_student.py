"""The student's stage on a tiny finished pool: every method trains, saves and exports."""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dynens.config.base import validate
from dynens.config.distill import DistillConfig
from dynens.config.learner import LearnerConfig, OptimizerConfig
from dynens.config.run import RunConfig
from dynens.data.prepared import open_prepared
from dynens.data.shards import ShardWriter
from dynens.distill.gating import voices_of
from dynens.distill.peers import Exchange, LocalBoard
from dynens.distill.trainer import DistillTrainer, Teaching
from dynens.ensemble.scorer import PoolScorer
from dynens.errors import ConfigError
from dynens.models.base import FitProgress, FitReport
from dynens.models.dnn import DNNLearner
from dynens.run import ENSEMBLE_JSON, MODEL_ONNX, RunDirectory, write_json
from tests.unit.training.pool import FAST, SETTINGS, context_of
from training.architecture import choose_architecture
from training.peers import TrainPeer
from training.stages import (
    calibrated_learners,
    pool_logits,
    read_blend,
)
from training.student import StudentLearner, best_neural, teacher_system
from training.valid_roles import valid_roles

EVERYTHING = {
    "hints": {"weight": 0.5},
    "gating": True,
    "relations": 1.0,
    "ema": 0.5,
    "memory": {"weight": 0.5},
    "generations": 2,
    "mixup": {"weight": 0.5},
    "guard": 0.5,
}


@pytest.mark.parametrize(
    "distill",
    [
        {},
        {"hints": {"weight": 0.5, "learner": "dnn"}, "augmented_per_row": 0},
        {"gating": True, "teacher": "ensemble"},
        EVERYTHING,
    ],
)
def test_every_method_trains_a_student_that_saves_and_exports(
    run: RunDirectory, tmp_path: Path, distill: dict[str, object]
) -> None:
    context = context_of(run, tmp_path, **distill)
    learner = StudentLearner(context, context.config.student).fit()
    learner.save(tmp_path)
    learner.export_onnx(tmp_path / MODEL_ONNX)
    report = json.loads((tmp_path / "fit.json").read_text())
    assert report["best_auc"] > 0.55
    valid = context.prepared().split("valid")
    logits = DNNLearner.load(tmp_path).predict_logits(valid)
    exported = PoolScorer({"student": tmp_path / MODEL_ONNX}).logits(valid)["student"]
    np.testing.assert_allclose(exported, logits, atol=1e-5)
    assert np.isfinite(logits).all()


def test_a_generation_learns_from_the_one_before(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wide assistant is taught by the pool; the student, of its own width, by the assistant."""
    context = context_of(run, tmp_path, generations=2, assistant_width=2)
    taught: list[tuple[int, Teaching]] = []

    class Recording(DistillTrainer):
        def __init__(self, network, config, distill, teaching, *rest) -> None:  # type: ignore[no-untyped-def]
            taught.append((config.hidden_units[0], teaching))
            super().__init__(network, config, distill, teaching, *rest)

    monkeypatch.setattr("training.student.DistillTrainer", Recording)
    learner = StudentLearner(context, context.config.student).fit()
    assert [width for width, _ in taught] == [16, 8]
    train = context.prepared().split("train")
    (_, first), (_, second) = taught
    pool = read_blend(run, teacher_system(run, "auto"))
    raw = pool_logits(run, tuple(pool.weights), "train")
    np.testing.assert_array_equal(first.logits, pool.logit(raw))
    assistant = second.factory._teacher.learner  # type: ignore[union-attr]
    assert assistant.config.hidden_units == (16,)
    np.testing.assert_array_equal(second.logits, assistant.predict_logits(train))
    assert learner.config.hidden_units == (8,)


def test_the_best_of_several_peers_is_the_student(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trains in turn here; the board of real workers has tests of its own."""
    trained: list[Path] = []

    def in_turn(config: RunConfig, train: TrainPeer, folder: Path) -> tuple[Path, FitReport]:
        board = LocalBoard(2)
        reports = {}
        for peer in range(config.distill.peers.count):
            place = folder / f"peer-{peer}"
            reports[place] = train(Exchange(board, peer, staleness=9), place)
            board.end(peer)
            trained.append(place)
        assert board.news(0, with_answers=True).answers is not None
        return max(reports.items(), key=lambda peer: peer[1].best_score)

    monkeypatch.setattr("training.peers.train_peers", in_turn)
    context = context_of(run, tmp_path, peers={"count": 2})
    learner = StudentLearner(context, context.config.student).fit()
    assert trained == [tmp_path / "checkpoints" / f"peer-{peer}" for peer in range(2)]
    valid = context.prepared().split("valid")
    own = [DNNLearner.load(place).predict_logits(valid) for place in trained]
    assert np.abs(own[0] - own[1]).max() > 1e-3  # other seeds
    found = [np.array_equal(learner.predict_logits(valid), logits) for logits in own]
    assert sorted(found) == [False, True]
    assert json.loads((tmp_path / "fit.json").read_text())["best_auc"] > 0.55


def test_views_need_an_item_with_more_than_its_key(run: RunDirectory, tmp_path: Path) -> None:
    context = context_of(run, tmp_path, views=0.5)
    with pytest.raises(ConfigError, match=r"views is 0.5 but the table has no item key .* to 0"):
        StudentLearner(context, context.config.student).fit()


def test_a_search_settles_the_student_by_its_teacher(run: RunDirectory, tmp_path: Path) -> None:
    context = context_of(run, tmp_path, gating=True)
    settings = {"student_search": {"trials": 3, "epochs": 1}, "student_cap_us_per_row": 1e6}
    config = validate(RunConfig, {**context.config.model_dump(), **settings}, "test")
    choose_architecture(replace(context, config=config))
    found = json.loads((tmp_path / "student.json").read_text())
    scores = [candidate["score"] for candidate in found["candidates"]]
    assert len(scores) == 3
    assert max(scores) == scores[0] < 0  # minus a distance
    assert found["config"]["hidden_units"] == found["candidates"][0]["hidden_units"]
    assert found["config"]["model"] == "dnn"  # as the configuration says
    assert found["config"]["optimizer"]["max_epochs"] == FAST["max_epochs"]


def test_a_student_whom_labels_taught_nothing_makes_way_for_a_faithful_one(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one hears the teacher alone, along a cosine, and is nearer to it."""
    trained: list[tuple[LearnerConfig, DistillConfig, Path]] = []

    class Recording(DistillTrainer):
        def __init__(self, network, config, distill, teaching, seed, how) -> None:  # type: ignore[no-untyped-def]
            trained.append((config, distill, how.checkpoint_dir))
            super().__init__(network, config, distill, teaching, seed, how)

    monkeypatch.setattr("training.student.DistillTrainer", Recording)
    monkeypatch.setattr("training.student.departures_tell", lambda *_: 2.9)
    faithful = {"below": 3.0, "epochs": 2, "least_steps": 30, "reuse": 5}
    progress: list[FitProgress] = []
    context = context_of(run, tmp_path, faithful=faithful, guard=0.5)
    context = replace(context, progress=progress.append)
    options = OptimizerConfig(max_epochs=9)
    student = context.config.student.model_copy(update={"optimizer": options})
    learner = StudentLearner(context, student).fit()
    learner.save(tmp_path)
    assert DNNLearner.load(tmp_path).config.optimizer.schedule == "cosine"
    (first, taught, _), (second, retaught, checkpoints) = trained
    assert (taught.alpha.start, taught.reuse, taught.guard) == (0.7, 8, 0.5)
    assert (retaught.alpha.start, retaught.alpha.kind, retaught.reuse) == (1.0, "constant", 5)
    assert retaught.guard == 0
    assert checkpoints == context.checkpoints / "faithful"
    assert first.optimizer.schedule == "plateau"
    options = second.optimizer
    # 840 training rows in batches of 64 are 14 steps an epoch, so 30 steps take three.
    assert len(context.prepared().split("train")) == 840
    assert (options.schedule, options.max_epochs, options.embedding_l2) == ("cosine", 3, 0.0)
    assert learner.config.optimizer.schedule == "cosine"
    report = json.loads((tmp_path / "fit.json").read_text())
    assert report["faithful"] is True
    assert report["departures_tell"] == 2.9
    assert [point["epoch"] for point in report["curve"]] == [1.0, 2.0, 3.0]
    fractions = [at.fraction for at in progress]
    assert fractions == sorted(fractions)
    assert fractions[-3:] == pytest.approx([2 / 3, 5 / 6, 1.0])


@pytest.mark.parametrize("left_s", [0, 3600])
def test_a_second_student_is_trained_only_where_there_is_time_for_it(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_s: float
) -> None:
    monkeypatch.setattr("training.student.departures_tell", lambda *_: 0.0)
    context = context_of(run, tmp_path, faithful={"epochs": 1, "least_steps": 1})
    context = replace(context, ends_at=time.time() + left_s)
    StudentLearner(context, context.config.student).fit()
    report = json.loads((tmp_path / "fit.json").read_text())
    assert (report["faithful"], report["is_cut"]) == (left_s > 0, left_s == 0)


def test_generations_have_equal_parts_of_the_stage_s_time_whenever_they_begin(
    run: RunDirectory, tmp_path: Path
) -> None:
    context = replace(context_of(run, tmp_path, generations=3), begun=1000.0, ends_at=1600.0)
    student = StudentLearner(context, context.config.student)
    assert [student._ends_at(generation) for generation in range(3)] == [1200, 1400, 1600]


@pytest.mark.parametrize(
    ("departures", "distill", "asked"),
    [
        (3.1, {"faithful": {}}, True),
        (-1.0, {"faithful": {"below": 0}}, False),
        (-1.0, {"faithful": {}, "alpha": {"start": 1.0}}, False),
        (-1.0, {"faithful": {}, "generations": 2}, False),
        (float("nan"), {"faithful": {}}, True),
    ],
)
def test_a_student_stays_where_labels_taught_it_or_no_other_is_wanted(
    run: RunDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    departures: float,
    distill: dict[str, object],
    asked: bool,
) -> None:
    monkeypatch.setattr("training.student.departures_tell", lambda *_: departures)
    context = context_of(run, tmp_path, **distill)
    learner = StudentLearner(context, context.config.student).fit()
    assert learner.config.optimizer.schedule == "plateau"
    report = json.loads((tmp_path / "fit.json").read_text())
    assert report["faithful"] is False
    told = asked and not math.isnan(departures)
    assert report["departures_tell"] == (departures if told else None)


@pytest.mark.parametrize(
    ("faithful", "max_epochs", "expected"),
    [
        ({"epochs": 3, "least_steps": 1}, 9, 3),
        ({"epochs": 3, "least_steps": 30}, 9, 3),
        ({"epochs": 1, "least_steps": 70}, 9, 5),
        ({"epochs": 8, "least_steps": 1}, 4, 4),
        ({"epochs": 8, "least_steps": 1, "most_steps": 30}, 9, 2),
        ({"epochs": 8, "least_steps": 1, "most_steps": 1}, 9, 1),
    ],
)
def test_epochs_of_the_faithful_student(
    run: RunDirectory, tmp_path: Path, faithful: dict[str, int], max_epochs: int, expected: int
) -> None:
    """An epoch of 840 rows in batches of 64 is 14 steps."""
    context = context_of(run, tmp_path, faithful=faithful)
    options = OptimizerConfig(max_epochs=max_epochs)
    student = context.config.student.model_copy(update={"optimizer": options})
    second = StudentLearner(context, student)._faithful()
    assert second._config.optimizer.max_epochs == expected


def test_departures_are_those_of_route_rows_from_the_calibrated_teacher(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def recorded(*arguments: np.ndarray) -> float:
        seen.append(arguments)
        return 9.0

    monkeypatch.setattr("training.student.departures_tell", recorded)
    context = context_of(run, tmp_path, faithful={})
    learner = StudentLearner(context, context.config.student).fit()
    valid = context.prepared().split("valid")
    route = valid_roles(context.config, valid).route
    blend = read_blend(run, teacher_system(run, "auto"))
    rows = valid.take(route)
    ((teacher, student, labels, weight),) = seen
    np.testing.assert_array_equal(
        teacher, blend.logit(pool_logits(run, tuple(blend.weights), "valid"))[route]
    )
    np.testing.assert_array_equal(student, learner.predict_logits(rows))
    np.testing.assert_array_equal(labels, np.asarray(rows.labels))
    np.testing.assert_array_equal(weight, np.ones(len(rows)))


def test_members_and_prior_of_a_real_blend_give_it_back(run: RunDirectory, tmp_path: Path) -> None:
    context = context_of(run, tmp_path)
    valid = context.prepared().split("valid")
    blend = read_blend(run, "full_pool")
    names = tuple(blend.weights)
    voices = voices_of(blend, calibrated_learners(run, names, valid, context.config))
    raw = pool_logits(run, names, "valid")
    np.testing.assert_allclose(
        voices.logits(raw) @ np.array(voices.prior), blend.logit(raw), atol=1e-4
    )


def test_best_neural_learner_is_no_tree_and_an_undefined_auc_comes_last() -> None:
    config = validate(RunConfig, SETTINGS, "test")
    assert best_neural(config, {"dnn": 0.7, "dcnv2": 0.71, "trees": 0.9}) == "dcnv2"
    assert best_neural(config, {"dnn": 0.7, "dcnv2": None, "trees": 0.9}) == "dnn"


def test_the_better_of_pool_and_trio_on_route_rows_teaches(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.ensemble.mkdir()
    for pool, trio, expected in ((0.7, 0.8, "static_ensemble"), (0.7, 0.7, "full_pool")):
        write_json(
            run.ensemble / ENSEMBLE_JSON,
            {"route_auc": {"full_pool": pool, "static_ensemble": trio}},
        )
        assert teacher_system(run, "auto") == expected
        assert teacher_system(run, "pool") == "full_pool"


def test_rows_without_a_label_are_among_those_that_the_teacher_labels(
    run: RunDirectory, tmp_path: Path
) -> None:
    copy = RunDirectory(tmp_path / "run")
    shutil.copytree(run.root, copy.root)
    data = open_prepared(copy.data)
    logged = replace(data.split("train").take(slice(0, 300)), labels=None)
    shard = ShardWriter(copy.data / "unlabelled.arrow")
    shard.append(dense=np.full_like(logged.dense, 7.0), ids=logged.ids)
    shard.finish()
    with_, without = (
        StudentLearner(context, context.config.student)
        for context in (context_of(copy, tmp_path / "a"), context_of(run, tmp_path / "b"))
    )
    shares = []
    for learner in (with_, without):
        factory = learner.lessons(context_of(run, tmp_path / "c")).teaching.factory
        assert factory is not None
        made = factory.make(0, 4000)
        shares.append((made.rows.dense == 7.0).all(axis=1).mean())
        assert np.isfinite(made.logits).all()
    few = 300 / len(data.split("train"))
    assert shares == pytest.approx([few / (2 + few), 0.0], abs=0.02)
