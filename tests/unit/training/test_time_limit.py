"""How the trainings of a run share its time."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from dynens.config.run import RunConfig
from dynens.rules import LabelRule
from dynens.run import RunDirectory, write_json
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec
from training import stage, time_limit
from training.context import StageContext
from training.plan import DONE, StageLimit, StageSpec
from training.stage import run_stage
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


def ends(limit, specs: list[StageSpec], begun: float = NOW) -> dict[str, float | None]:  # type: ignore[no-untyped-def]
    """When stages that began then end, in seconds from NOW."""
    given = {spec.name: limit.applied(spec).limit for spec in specs}
    return {name: limit and limit.end(begun) - NOW for name, limit in given.items()}


def test_without_a_limit_there_is_none_in_any_pass(tmp_path: Path) -> None:
    specs = stages(tmp_path)
    assert time_limits(None, NOW, [specs, specs], slots=2) == [None, None]


def test_the_pool_has_half_of_what_is_left_and_the_student_all_but_a_tenth(
    tmp_path: Path,
) -> None:
    specs = stages(tmp_path)
    (limit,) = time_limits(10, NOW - 100, [specs], slots=2)  # 500 s are left
    given = ends(limit, specs)
    assert given["learner:a"] == given["baseline"] == 250 * 2 / 4
    assert given["student"] == 450
    assert given["ensemble"] is given["router"] is None


def test_what_waits_for_a_core_has_its_time_from_then_but_not_beyond_the_students_end(
    tmp_path: Path,
) -> None:
    specs = stages(tmp_path)
    (limit,) = time_limits(10, NOW - 100, [specs], slots=2)
    assert ends(limit, specs, begun=NOW + 200)["learner:a"] == 200 + 125
    late = ends(limit, specs, begun=NOW + 400)
    assert late["learner:a"] == late["student"] == 450


def test_finished_trainings_take_no_time_and_one_that_is_alone_all_of_the_pools(
    tmp_path: Path,
) -> None:
    specs = stages(tmp_path)
    for spec in specs[:3]:
        spec.directory.mkdir(parents=True)
        write_json(spec.directory / DONE, {})
    (limit,) = time_limits(10, NOW, [specs], slots=2)
    assert ends(limit, specs)["baseline"] == 300


def test_a_second_pass_follows_the_first_which_has_half(tmp_path: Path) -> None:
    specs = stages(tmp_path)
    first, second = time_limits(10, NOW, [specs, specs], slots=4)
    assert second is None
    assert ends(first, specs)["learner:a"] == 150
    assert ends(first, specs)["student"] == 270


def test_time_that_is_over_leaves_nothing(tmp_path: Path) -> None:
    specs = stages(tmp_path)
    (limit,) = time_limits(1, NOW - 100, [specs], slots=2)
    assert ends(limit, specs)["learner:a"] == ends(limit, specs)["student"] == 0


def test_a_worker_in_the_place_of_a_killed_one_has_what_that_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that resumes the run gives the stage its time anew."""
    features = FeatureSchema(label=LabelRule(column="y"), fields=(FieldSpec(name="c"),))
    run, dataset = RunDirectory(tmp_path), DatasetConfig(files=("t.csv",), features=features)
    run.start({"data": dataset.model_dump(mode="json")}, resume=False)
    clock, seen = [NOW], []

    def killed(context: StageContext) -> None:
        seen.append((context.begun, context.ends_at))
        raise KeyboardInterrupt

    monkeypatch.setattr(stage.time, "time", lambda: clock[0])
    monkeypatch.setattr(stage, "_stage_function", lambda *_: killed)
    spec = StageSpec("learner:a", run.learner("a"), ())
    first, resumed = StageLimit(NOW, 60.0, math.inf), StageLimit(NOW + 40, 60.0, NOW + 90)
    for limit in (first, first, resumed, resumed):
        with pytest.raises(KeyboardInterrupt):
            run_stage(replace(spec, limit=limit), run, RunConfig())
        clock[0] += 20
    assert seen == [(NOW, NOW + 60)] * 2 + [(NOW + 40, NOW + 90)] * 2
