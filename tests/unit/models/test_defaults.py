"""Hyper-parameters chosen from the table's size."""

from dynens.batch import FeatureLayout, SparseField
from dynens.config.learner import LearnerConfig, TreesConfig
from dynens.models.defaults import resolve_config, resolve_trees


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


def test_matrices_of_wide_tables_have_a_low_rank():
    fields = tuple(SparseField(f"f{i}", 10) for i in range(32))
    wide, narrow = FeatureLayout((), fields), FeatureLayout((), fields[:31])
    ranks = [
        resolve_config(LearnerConfig(model="dcnv2", embedding_dim=16, rank=rank), layout, 1000).rank
        for rank, layout in ((None, wide), (None, narrow), (0, wide), (8, narrow))
    ]
    assert ranks == [64, 0, 0, 8]


def test_embeddings_of_small_tables_start_large():
    layout = FeatureLayout((), (SparseField("user", 1000),))
    config = LearnerConfig(model="dnn")
    stds = [
        resolve_config(config, layout, n).embedding_std for n in (9_999, 10_000, 99_999, 100_000)
    ]
    assert stds == [0.01, 0.14, 0.14, 0.01]
    given = LearnerConfig(model="dnn", embedding_std=0.3)
    assert resolve_config(given, layout, 1000).embedding_std == 0.3


def test_lists_of_small_tables_are_sums() -> None:
    layout = FeatureLayout((), (SparseField("tags", 9, 3),))
    config = LearnerConfig(model="dnn")
    assert resolve_config(config, layout, 99_999).list_pooling == "sum"
    assert resolve_config(config, layout, 100_000).list_pooling == "mean"
    given = LearnerConfig(model="dnn", list_pooling="mean")
    assert resolve_config(given, layout, 1000).list_pooling == "mean"
