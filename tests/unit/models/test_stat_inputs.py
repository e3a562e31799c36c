"""Target and count encodings as inputs: an id that training never had must not swamp a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynens.batch import EncodedBatch, FeatureLayout, SparseField
from dynens.config.learner import LearnerConfig
from dynens.models.net_learner import NetLearner
from dynens.models.network import StatInputs
from dynens.models.registry import build_learner
from dynens.models.selection import select_features
from dynens.models.twin import InferenceTwin
from tests.unit.models.tables import TinyStats, lookup, tiny_table

# A field of two values in nearly equal numbers: the deviation of its log count is next to nothing.
LAYOUT = FeatureLayout((), (SparseField("device", 4), SparseField("tags", 4, 2)))
TABLE = np.array(
    [
        *([0, 0], [0.1, 0], [0.1, 0], [0.2, 6.60], [0.0, 6.61]),  # padding, then four devices
        *([0, 0], [0.1, 0], [0.1, 0], [0.3, 5.0], [-0.3, 6.0]),
    ],
    np.float32,
)
STATS = TinyStats(TABLE, ("device:target", "tags:target", "device:count", "tags:count"), (1, 6))


def stat_inputs() -> StatInputs:
    selection = select_features(LAYOUT, None)
    inputs = StatInputs(selection, selection.table(STATS))
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(2, 4, 500) for _ in range(3)], axis=1).astype(np.int32)
    inputs.fit(lookup(LAYOUT, STATS, ids))
    return inputs


def test_an_unseen_id_lies_at_most_three_deviations_away() -> None:
    inputs = stat_inputs()
    ids = torch.tensor([[0, 0, 0], [1, 1, -1], [2, 3, -1]], dtype=torch.int32)
    values = inputs(ids)
    raw = torch.from_numpy(lookup(LAYOUT, STATS, ids.numpy()))
    assert ((raw - inputs.mean) * inputs.scale).abs().max() > 100
    assert values.abs().max().item() == pytest.approx(3.0)
    assert inputs.standardise(raw).abs().max().item() == pytest.approx(3.0)
    # Known values lie where they did.
    torch.testing.assert_close(values[2], ((raw - inputs.mean) * inputs.scale)[2])


def test_the_table_holds_what_rows_are_given() -> None:
    inputs = stat_inputs()
    ids = torch.tensor([[0, 3, -1], [3, 2, 3]], dtype=torch.int32)
    rows = torch.nn.functional.embedding(inputs.index.rows(ids), inputs.standardised_table())
    pooled = inputs.index.pool(rows, ids).transpose(1, 2).flatten(1)
    torch.testing.assert_close(inputs.bounded(pooled), inputs(ids))


def test_means_of_lists_are_bounded_and_not_their_values() -> None:
    # Two tags far from the mean on either side, whose mean every training row had.
    layout = FeatureLayout((), (SparseField("tags", 4, 2),))
    table = np.array([[0, 0], [0, 0], [0, 0], [-8.0, 1.0], [12.0, 1.0]], np.float32)
    selection = select_features(layout, None)
    inputs = StatInputs(selection, table)
    ids = np.array([[2, 3]] * 50 + [[3, 2]] * 50, np.int32)
    spread = np.linspace(-1, 1, 100, dtype=np.float32)[:, None]  # other folds' values
    stats = lookup(layout, TinyStats(table, ("", ""), (1,)), ids) + spread
    inputs.fit(stats)
    read = inputs(torch.from_numpy(ids))
    torch.testing.assert_close(
        read, inputs.standardise(torch.full((100, 2), 2.0) * torch.tensor([1.0, 0.5]))
    )
    assert read.abs().max() < 1e-4


@pytest.mark.parametrize("model", ["dnn", "ipnn", "dcnv2", "finalmlp", "masknet"])
def test_an_unseen_value_of_an_idle_field_hardly_moves_a_logit(model: str) -> None:
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(2, 60, 3000), rng.integers(2, 6, 3000)], axis=1).astype(np.int32)
    effect = rng.normal(0, 1.2, 60)
    labels = (rng.random(3000) < 1 / (1 + np.exp(-effect[ids[:, 0]]))).astype(np.float32)
    layout = FeatureLayout((), (SparseField("user", 60), SparseField("device", 6)))
    parts = []
    for column, size in ((0, 60), (1, 6)):
        count = np.bincount(ids[:, column], minlength=size)
        rate = (np.bincount(ids[:, column], labels, size) + 1) / (count + 2)
        encodings = np.stack([np.log(rate / (1 - rate)), np.log1p(count)], axis=1)
        parts += [np.zeros((1, 2)), encodings]
    stats = TinyStats(np.concatenate(parts).astype(np.float32), ("",) * 4, (1, 62))
    config = LearnerConfig.model_validate(
        {"model": model, "use_stats": True, "optimizer": {"max_epochs": 4}}
    )
    learner = build_learner(config, layout, stats, 0)
    dense = np.zeros((3000, 0), np.float32)
    train = EncodedBatch(dense, ids, labels, stats=lookup(layout, stats, ids))
    learner.fit(train, train)
    unseen = ids.copy()
    unseen[:, 1] = 0
    before = learner.predict_logits(EncodedBatch(dense, ids))
    after = learner.predict_logits(EncodedBatch(dense, unseen))
    assert np.abs(after - before).mean() < 0.3
    level = (1 / (1 + np.exp(-logits)) for logits in (before, after))
    assert abs(np.subtract(*(probability.mean() for probability in level))) < 0.04


def test_a_value_that_no_training_row_has_counts_as_much_as_the_mean_of_its_field() -> None:
    inputs = stat_inputs()
    count = torch.zeros(len(TABLE))
    count[[3, 4, 8, 9]] = 250.0
    inputs.fill_unseen(count)
    ids = torch.tensor([[0, 0, -1], [1, 1, -1], [3, 3, -1]], dtype=torch.int32)
    counts = inputs(ids)[:, 2:]
    torch.testing.assert_close(counts[:2], torch.zeros(2, 2), atol=1e-4, rtol=0)
    raw = torch.from_numpy(lookup(LAYOUT, STATS, ids.numpy()))
    torch.testing.assert_close(counts[2], ((raw - inputs.mean) * inputs.scale)[2, 2:])
    assert (inputs.standardised_table()[inputs.index.padding_rows] == 0).all()


def test_twin_and_network_clamp_alike() -> None:
    table = tiny_table(multi_valued=True)
    config = LearnerConfig.model_validate(
        {"model": "dnn", "use_stats": True, "optimizer": {"max_epochs": 1}}
    )
    learner = build_learner(config, table.layout, table.stats, 0)
    assert isinstance(learner, NetLearner)
    learner.fit(table.train, table.valid)
    network = learner.networks_[0].eval()
    assert network.stat_inputs is not None
    network.stat_inputs.scale.mul_(50)  # most values lie beyond three deviations now
    ids, dense = torch.from_numpy(table.valid.ids), torch.from_numpy(table.valid.dense)
    torch.testing.assert_close(
        InferenceTwin(network)(dense, ids), network(dense, ids), atol=1e-5, rtol=0
    )
