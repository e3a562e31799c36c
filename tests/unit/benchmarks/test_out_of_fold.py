"""Folds, a run with other answers, and the table."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import out_of_fold
from benchmarks.out_of_fold import answering_runs, fold_rows, markdown, with_answers
from dynens.run import RunDirectory


def test_folds_hold_every_row_once() -> None:
    folds = fold_rows(1000, 4, seed=3)
    assert len(folds) == 4
    assert all(200 < len(rows) < 300 for rows in folds)
    np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(1000))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    root = tmp_path / "mine"
    for name in ("a", "b"):
        folder = root / "learners" / name
        folder.mkdir(parents=True)
        np.save(folder / "logits_train.npy", np.zeros(20, np.float32))
        (folder / "model.onnx").write_text(name)
    (root / "config.yaml").write_text("seed: 1")
    return RunDirectory(root)


def test_a_run_with_other_answers_is_the_run_otherwise(run: RunDirectory, tmp_path: Path) -> None:
    other = RunDirectory(with_answers(run, {"a": np.ones(20, np.float32)}, tmp_path / "other"))
    assert other.config.read_text() == "seed: 1"
    assert (other.learner("a") / "model.onnx").read_text() == "a"
    assert np.load(other.learner("a") / "logits_train.npy").sum() == 20
    assert np.load(run.learner("a") / "logits_train.npy").sum() == 0


def test_each_row_is_answered_by_the_learner_of_its_fold(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SimpleNamespace(learners={"a": None, "b": None}, seed=1)
    few = SimpleNamespace()
    data = SimpleNamespace(
        split=lambda _: np.zeros(20), without_unsuited=lambda given: {id(few): config}[id(given)]
    )
    monkeypatch.setattr(out_of_fold, "open_prepared", lambda _: data)
    monkeypatch.setattr(out_of_fold, "run_config", lambda _: few)
    monkeypatch.setattr(out_of_fold, "teachers_auc", lambda _: 0.5)

    def submit(_: object, __: Path, name: str, rows: out_of_fold.Rows) -> Future:  # type: ignore[type-arg]
        answer: Future[tuple[np.ndarray, float]] = Future()
        answer.set_result((rows + (100.0 if name == "b" else 0.0), 2.0))
        return answer

    roots, teachers = answering_runs(run, [2], tmp_path, submit)
    assert roots[0] == run.root
    assert teachers["2"]["seconds"] == 8
    own = RunDirectory(roots[2])
    np.testing.assert_array_equal(np.load(own.learner("a") / "logits_train.npy"), np.arange(20))
    np.testing.assert_array_equal(
        np.load(own.learner("b") / "logits_train.npy"), np.arange(20) + 100
    )


def test_differences_are_those_of_students_of_one_seed() -> None:
    def result(folds: int, seed: int, test: float) -> dict[str, object]:
        return {
            "variant": "alpha 1",
            "folds": folds,
            "seed": seed,
            "teacher_correlation": 0.9,
            "route": 0.8,
            "test": test,
        }

    teachers = {"0": {"auc": 0.95, "seconds": 0.0}, "2": {"auc": 0.88, "seconds": 60.0}}
    results = [result(0, 1, 0.70), result(0, 2, 0.80), result(2, 1, 0.69), result(2, 2, 0.79)]
    report = json.loads(json.dumps({"teachers": teachers, "results": results}))
    last = markdown(report).splitlines()[3]
    assert last.startswith("| alpha 1 | of 2 folds | 0.8800 |")
    assert "| -0.0100 ± 0.0000 | 60 |" in last
