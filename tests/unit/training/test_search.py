"""The search for a student: its space, its cap, its methods, and going on after a kill."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from dynens.config.base import validate
from dynens.config.learner import LearnerConfig
from dynens.config.run import RunConfig
from dynens.errors import TrainingError
from dynens.run import RunDirectory
from dynens.schema import DatasetConfig
from training.architecture import Candidate
from training.context import StageContext
from training.search import parameters_of, search_student, student_of

FIRST = RunConfig().student.model_copy(update={"model": "ipnn"})
MODELS = ("ipnn", "dnn")


def context_of(folder: Path, **search: object) -> StageContext:
    config = validate(RunConfig, {"seed": 3, "student_search": {"trials": 12, **search}}, "test")
    run, dataset = RunDirectory(folder), DatasetConfig.model_construct()
    return StageContext(run, dataset, config, folder, folder / "checkpoints", lambda _: None)


def cost_of(student: LearnerConfig) -> float:
    """A µs for every eight columns of an embedding."""
    return student.embedding_dim / 8


def wide_is_good(context: StageContext, student: LearnerConfig, roles: object) -> float:
    return -1.0 / student.hidden_units[0] - abs(math.log(student.optimizer.learning_rate / 2e-3))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[LearnerConfig]:
    """Students that were trained, their scores being `wide_is_good`."""
    trained: list[LearnerConfig] = []

    def score(context: StageContext, student: LearnerConfig, roles: object) -> float:
        trained.append(student)
        return wide_is_good(context, student, roles)

    monkeypatch.setattr("training.search._trained_score", score)
    return trained


def search(
    context: StageContext, measure: Callable[[LearnerConfig], float] = cost_of
) -> list[Candidate]:
    return search_student(context, FIRST, MODELS, measure)


def test_a_student_that_diverges_is_one_try_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[LearnerConfig] = []

    def score(context: StageContext, student: LearnerConfig, roles: object) -> float:
        tried.append(student)
        if len(tried) > 1:
            raise TrainingError("the loss is not finite")
        return wide_is_good(context, student, roles)

    monkeypatch.setattr("training.search._trained_score", score)
    (found,) = search(context_of(tmp_path, trials=4), lambda _: 0.0)
    assert found.config == FIRST
    assert len(tried) == 4  # the others diverged
    with pytest.raises(TrainingError, match=r"none of the 4 students .*learning_rate or set"):
        search(context_of(tmp_path / "again", trials=4), lambda _: 0.0)


def test_a_student_is_a_point_of_the_space_and_the_default_is_met_exactly() -> None:
    assert student_of(parameters_of(FIRST), FIRST) == FIRST
    odd = FIRST.model_copy(update={"embedding_dim": 100, "hidden_units": (), "dropout": 0.26})
    near = student_of(parameters_of(odd), odd)
    assert (near.embedding_dim, near.hidden_units) == (32, (32,))
    assert near.dropout == pytest.approx(0.3)
    deep = student_of({**parameters_of(FIRST), "layers": 3}, FIRST)
    assert deep.hidden_units == (128, 64, 32)


@pytest.mark.parametrize("method", ["bayesian", "genetic"])
def test_the_best_within_the_cap_comes_first(
    tmp_path: Path, scored: list[LearnerConfig], method: str
) -> None:
    context = context_of(tmp_path, method=method, trials=24)
    tried = search(context)
    assert len(tried) == 24
    scores = [candidate.score for candidate in tried]
    assert scores == sorted(scores, key=float, reverse=True)  # type: ignore[arg-type]
    assert scored[0] == FIRST
    assert scores[0] > wide_is_good(context, FIRST, None)  # type: ignore[operator]
    cap = context.config.student_cap_us_per_row
    beyond = [candidate for candidate in tried if candidate.cost_us_per_row > cap]
    assert beyond  # embeddings of 32
    assert beyond == tried[-len(beyond) :]
    assert all(student.embedding_dim <= 8 * cap for student in scored)
    assert {candidate.config.model for candidate in tried} == set(MODELS)


def test_where_none_keeps_the_cap_the_cheapest_comes_first(
    tmp_path: Path, scored: list[LearnerConfig]
) -> None:
    tried = search(context_of(tmp_path), lambda student: 100.0 + student.embedding_dim)
    assert not scored
    assert tried[0].cost_us_per_row == min(candidate.cost_us_per_row for candidate in tried)


def test_a_killed_search_goes_on(tmp_path: Path, scored: list[LearnerConfig]) -> None:
    class KilledError(Exception):
        pass

    def killing(student: LearnerConfig) -> float:
        if len(scored) == 4:
            raise KilledError
        return 1.0

    context = context_of(tmp_path)
    with pytest.raises(KilledError):
        search(context, killing)
    tried = search(context, lambda student: 1.0)
    assert len(tried) == len(scored) == 12
    assert sorted(c.config.hidden_units for c in tried) == sorted(s.hidden_units for s in scored)


@pytest.mark.parametrize("method", ["bayesian", "genetic"])
@pytest.mark.parametrize("killed_at", [0, 5])
def test_a_killed_search_tries_the_default_and_does_not_begin_anew(
    tmp_path: Path, scored: list[LearnerConfig], method: str, killed_at: int
) -> None:
    class KilledError(BaseException):
        """Nothing that the search could write down, as little as SIGKILL is."""

    def killing(student: LearnerConfig) -> float:
        if len(scored) == killed_at:
            raise KilledError
        return 1.0

    search(context_of(tmp_path / "whole", method=method), lambda student: 1.0)
    whole, number = list(scored), 10  # later suggestions follow from the scores of earlier ones
    scored.clear()
    context = context_of(tmp_path / "killed", method=method)
    with pytest.raises(KilledError):
        search(context, killing)
    tried = search(context, lambda student: 1.0)
    assert len(tried) == len(scored) == 12
    assert scored[0] == FIRST
    assert scored[:number] == whole[:number]
