"""Which student is trained."""

from dynens.batch import FeatureLayout, SparseField
from dynens.config.learner import LearnerConfig
from dynens.config.run import RunConfig, load_run_config
from training.architecture import (
    Candidate,
    candidates,
    choose,
)
from training.inheritance import inherited_from, with_inheritance


def measured(*costs: float) -> list[Candidate]:
    return [Candidate(LearnerConfig(name=f"c{i}"), cost) for i, cost in enumerate(costs)]


def test_the_first_within_the_cap_is_taken() -> None:
    assert choose(measured(9.0, 2.9, 1.0), 3.0).config.name == "c1"


def test_the_cheapest_is_taken_where_none_keeps_the_cap() -> None:
    assert choose(measured(9.0, 5.0, 6.0), 3.0).config.name == "c1"


def test_auto_tries_inner_products_then_smaller_perceptrons() -> None:
    tried = candidates(RunConfig().student, 10)
    assert [(c.model, c.embedding_dim, c.hidden_units) for c in tried] == [
        ("ipnn", 16, (128, 64)),
        ("dnn", 16, (128, 64)),
        ("dnn", 8, (64, 32)),
    ]
    assert candidates(LearnerConfig(model="deepfm"), 10) == [LearnerConfig(model="deepfm")]


LAYOUT = FeatureLayout(
    (), (SparseField("user", 30), SparseField("age", 5), SparseField("item", 20)), context_fields=2
)


def test_the_student_has_room_for_what_it_takes_over() -> None:
    config = RunConfig()
    assert inherited_from(config, LAYOUT) == {"autorec": 128, "bmf": 64}
    assert with_inheritance(config, LAYOUT).product_width == 128  # the most
    short = config.learners["autorec"].model_copy(update={"embedding_dim": 8})
    learners = {**config.learners, "autorec": short}
    shorter = config.model_copy(update={"learners": learners})
    assert inherited_from(shorter, LAYOUT)["autorec"] == 32  # two sides, two branches
    assert with_inheritance(shorter, LAYOUT).product_width == 96


def test_a_student_of_other_fields_or_one_told_so_takes_nothing_over() -> None:
    config = RunConfig()
    alone = load_run_config(None, ["distill.inherit=false"])
    no_items = load_run_config(None, ["student.fields=[user, age]"])
    without = config.model_copy(
        update={"learners": {n: c for n, c in config.learners.items() if not c.is_pair}}
    )
    for other in (alone, no_items, without):
        assert inherited_from(other, LAYOUT) == {}
        assert with_inheritance(other, LAYOUT) == other.student
    assert inherited_from(config, FeatureLayout((), LAYOUT.fields[:1])) == {}


def test_wide_tables_do_not_measure_inner_products() -> None:
    assert [c.model for c in candidates(RunConfig().student, 300)] == ["dnn", "dnn"]
