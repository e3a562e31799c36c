"""What the stages share."""

from __future__ import annotations

from dynens.config.run import load_run_config
from training.stages import learner_seed


def seeds_of(*names: str) -> dict[str, int]:
    """Seeds of learners that are all alike, in a pool with the default ones."""
    config = load_run_config(None, [f"learners.{name}={{model: dnn}}" for name in names])
    return {name: learner_seed(config, name) for name in config.learners}


def test_learners_whose_names_have_the_same_letters_do_not_train_alike() -> None:
    seeds = seeds_of("dnn-12", "dnn-21", "dnn-30")
    assert len(set(seeds.values())) == len(seeds)


def test_a_learner_keeps_its_seed_when_others_are_added() -> None:
    assert seeds_of("dnn-12", "dnn-21").items() >= seeds_of("dnn-12").items()
    assert seeds_of("dnn-12")["finalmlp"] == 1851
