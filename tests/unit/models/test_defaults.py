"""Hyper-parameters chosen from the table's size."""

from dynens.config.learner import TreesConfig
from dynens.models.defaults import resolve_trees


def test_trees_are_shallower_and_slower_on_small_tables():
    small, middle, large = (resolve_trees(TreesConfig(), n) for n in (2_000, 15_000, 300_000))
    assert (small.max_depth, small.learning_rate, small.early_stopping_rounds) == (4, 0.05, 50)
    assert (middle.max_depth, middle.learning_rate, middle.early_stopping_rounds) == (6, 0.05, 50)
    assert (large.max_depth, large.learning_rate, large.early_stopping_rounds) == (6, 0.1, 30)
    assert (small.min_child_weight, large.min_child_weight) == (1.0, 20.0)


def test_what_is_given_stays():
    given = TreesConfig(max_depth=8, learning_rate=0.2, min_child_weight=0)
    resolved = resolve_trees(given, 2_000)
    assert (resolved.max_depth, resolved.learning_rate) == (8, 0.2)
    assert resolved.min_child_weight == 0
