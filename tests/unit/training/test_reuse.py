"""Which stages of another run a new one may take over."""

from pathlib import Path

import pytest

from dynens.config.base import apply_overrides, validate
from dynens.config.run import RunConfig, load_run_config
from dynens.run import RunDirectory
from training.plan import plan
from training.reuse import changed_stages

LATE = {"router", "bundle"}
TAUGHT = LATE | {"student"}
SHAPED = TAUGHT | {"architecture", "baseline"}


def changed(old: list[str], new: list[str]) -> set[str]:
    before, after = (
        validate(RunConfig, apply_overrides(RunConfig().model_dump(mode="json"), settings), "test")
        for settings in (old, new)
    )
    return changed_stages(before, after, plan(after, RunDirectory(Path("run")), 2))


@pytest.mark.parametrize(
    ("setting", "stages"),
    [
        ("ray.num_cpus=1", set()),
        ("report.bootstrap_draws=20", set()),
        ("serving.latency_budget_ms=20", {"bundle"}),
        ("router.hard_fraction=0.1", LATE),
        ("distill.alpha.start=0.9", TAUGHT),
        ("student_cap_us_per_row=2", SHAPED),
        ("student.embedding_dim=8", SHAPED),
        ("distill.inherit=false", SHAPED),
        (
            "learners.autorec.embedding_dim=8",
            SHAPED | {"learner:autorec", "ensemble"},
        ),
        ("ensemble.size=2", TAUGHT | {"ensemble"}),
        ("learners.ipnn.max_fields=1000", set()),
        ("learners.autorec.min_rows_per_id=9", set()),
        ("learners.ipnn.embedding_dim=8", TAUGHT | {"learner:ipnn", "ensemble"}),
    ],
)
def test_a_section_changes_the_stages_that_read_it_and_those_after(
    setting: str, stages: set[str]
) -> None:
    assert changed([], [setting]) == stages


@pytest.mark.parametrize("setting", ["router.select_share=0.4", "ensemble.int8=auto"])
def test_what_every_training_reads_changes_all_but_the_data(setting: str) -> None:
    kept = {spec.name for spec in plan(RunConfig(), RunDirectory(Path("run")), 2)} - changed(
        ["ensemble.int8=off"], ["ensemble.int8=off", setting]
    )
    assert kept == {"prepare"}


def test_a_search_hears_the_teacher() -> None:
    searched = "student_search.trials=4"
    assert "architecture" in changed([searched], [searched, "distill.alpha.start=0.9"])


def test_a_learner_that_is_gone_changes_the_ensemble() -> None:
    config = RunConfig()
    fewer = config.model_copy(
        update={"learners": {n: c for n, c in config.learners.items() if n != "finalmlp"}}
    )
    stages = plan(fewer, RunDirectory(Path("run")), 2)
    assert fewer.learners != config.learners
    assert changed_stages(config, fewer, stages) == TAUGHT | {"ensemble"}


def test_settings_lie_over_those_of_the_other_run(tmp_path: Path) -> None:
    given = load_run_config(None, ["distill.alpha.start=0.9", "seed=7"]).model_dump(mode="json")
    (tmp_path / "c.yaml").write_text("distill: {temperature: {start: 3}}")
    config = load_run_config(tmp_path / "c.yaml", ["router.hard_fraction=0.1"], given)
    assert (config.seed, config.distill.alpha.start) == (7, 0.9)
    assert (config.distill.temperature.start, config.router.hard_fraction) == (3, 0.1)
    learners = {name: {"model": "dnn"} for name in ("a", "b", "c")}
    (tmp_path / "l.yaml").write_text(f"learners: {learners}")
    assert set(load_run_config(tmp_path / "l.yaml", [], given).learners) == {"a", "b", "c"}
