"""Which student is trained."""

from dynens.config.learner import LearnerConfig
from dynens.config.run import RunConfig
from training.architecture import Candidate, candidates, choose


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


def test_wide_tables_do_not_measure_inner_products() -> None:
    assert [c.model for c in candidates(RunConfig().student, 300)] == ["dnn", "dnn"]
