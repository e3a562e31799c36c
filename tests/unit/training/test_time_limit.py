"""How the trainings of a run share its time."""

from pathlib import Path

import pytest

from dynens.run import RunDirectory, write_json
from training import time_limit
from training.plan import DONE, StageSpec
from training.time_limit import time_limits

NOW = 1000.0


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limit.time, "time", lambda: NOW)


def stages(tmp_path: Path) -> list[StageSpec]:
    run = RunDirectory(tmp_path)
    learners = [StageSpec(f"learner:{n}", run.learner(n), ()) for n in ("a", "b", "c")]
    baseline = StageSpec("baseline", run.baseline, ())
    return [*learners, baseline, StageSpec("student", run.student, ()), *rest(run)]


def rest(run: RunDirectory) -> list[StageSpec]:
    return [StageSpec("ensemble", run.ensemble, ()), StageSpec("router", run.router, ())]


def seconds(limit, specs: list[StageSpec]) -> dict[str, float | None]:  # type: ignore[no-untyped-def]
    return {spec.name: limit.applied(spec).seconds for spec in specs}


def test_without_a_limit_there_is_none_in_any_pass(tmp_path: Path) -> None:
    specs = stages(tmp_path)
    assert time_limits(None, NOW, [specs, specs], slots=2) == [None, None]


def test_the_pool_has_half_of_what_is_left_and_the_student_all_but_a_tenth(
    tmp_path: Path,
) -> None:
    specs = stages(tmp_path)
    (limit,) = time_limits(10, NOW - 100, [specs], slots=2)  # 500 s are left
    given = seconds(limit, specs)
    assert given["learner:a"] == given["baseline"] == 250 * 2 / 4
    assert given["student"] == 450
    assert given["ensemble"] is given["router"] is None


def test_finished_trainings_take_no_time_and_one_that_is_alone_all_of_the_pools(
    tmp_path: Path,
) -> None:
    specs = stages(tmp_path)
    for spec in specs[:3]:
        spec.directory.mkdir(parents=True)
        write_json(spec.directory / DONE, {})
    (limit,) = time_limits(10, NOW, [specs], slots=2)
    assert seconds(limit, specs)["baseline"] == 300


def test_a_second_pass_follows_the_first_which_has_half(tmp_path: Path) -> None:
    specs = stages(tmp_path)
    first, second = time_limits(10, NOW, [specs, specs], slots=4)
    assert second is None
    assert seconds(first, specs)["learner:a"] == 150
    assert seconds(first, specs)["student"] == 270


def test_time_that_is_over_leaves_nothing(tmp_path: Path) -> None:
    specs = stages(tmp_path)
    (limit,) = time_limits(1, NOW - 100, [specs], slots=2)
    assert seconds(limit, specs)["learner:a"] == seconds(limit, specs)["student"] == 0
