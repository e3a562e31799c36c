"""Pruned perceptrons: importance by hand, and the same function where nothing that acts is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dynens.config.learner import LearnerConfig
from dynens.models.batches import TensorBatch, tensor_batch
from dynens.models.net_learner import NetLearner
from dynens.models.network import CTRNetwork
from dynens.models.pruning import (
    magnitude_importance,
    most_important,
    pruned_weights,
    taylor_importance,
)
from dynens.models.registry import build_learner
from tests.unit.models.tables import tiny_table

TABLE = tiny_table(num_fields=4)


def built(model: str, hidden_units: list[int]) -> tuple[NetLearner, CTRNetwork]:
    config = LearnerConfig.model_validate(
        {"model": model, "hidden_units": hidden_units, "embedding_dim": 4, "dropout": 0.0}
    )
    learner = build_learner(config, TABLE.layout, TABLE.stats, 0)
    assert isinstance(learner, NetLearner)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return learner, learner.build_network(config)


def test_magnitude_is_the_l1_norm_of_incoming_weights() -> None:
    _, network = built("dnn", [3, 2])
    weights = network.state_dict()
    weights["head.mlp.layers.0.weight"].zero_()
    weights["head.mlp.layers.0.weight"][1, :2] = torch.tensor([1.5, -2.0])
    weights["head.mlp.layers.2.weight"].copy_(torch.tensor([[1.0, -1.0, 0.5], [0.0, 0.0, -4.0]]))
    first, second = magnitude_importance(network)
    assert first.tolist() == [0.0, 3.5, 0.0]
    assert second.tolist() == [2.5, 4.0]


def test_taylor_importance_by_hand() -> None:
    """Biases make h = (2, 3, 0) in every row, logit = 1·2 - 2·3 + 5·0 = -4.

    With the loss 3·logit, |∂L/∂h · h| = 3·(1·2, 2·3, 5·0).
    """
    _, network = built("dnn", [3])
    weights = network.state_dict()
    weights["head.mlp.layers.0.weight"].zero_()
    weights["head.mlp.layers.0.bias"].copy_(torch.tensor([2.0, 3.0, -1.0]))
    weights["head.output.weight"].copy_(torch.tensor([[1.0, -2.0, 5.0]]))
    weights["head.output.bias"].zero_()
    seen: list[Tensor] = []

    def loss(logits: Tensor, batch: TensorBatch) -> Tensor:
        seen.append(logits.detach())
        return 3 * logits

    batches = [tensor_batch(TABLE.train, np.arange(start, start + 50)) for start in (0, 50)]
    (importance,) = taylor_importance(network, batches, loss)
    torch.testing.assert_close(importance, torch.tensor([6.0, 18.0, 0.0]))
    torch.testing.assert_close(torch.cat(seen), torch.full((100,), -4.0))


def test_the_most_important_stay_in_their_order() -> None:
    importance = [torch.tensor([0.1, 0.9, 0.5, 0.7]), torch.tensor([1.0, 2.0])]
    assert [k.tolist() for k in most_important(importance, 0.5)] == [[1, 3], [1]]
    assert [k.tolist() for k in most_important(importance, 0.0)] == [[0, 1, 2, 3], [0, 1]]
    assert [k.tolist() for k in most_important(importance, 0.99)] == [[1], [1]]


@pytest.mark.parametrize("model", ["dnn", "ipnn"])
def test_without_units_that_say_nothing_the_function_is_the_same(model: str) -> None:
    """Units that are silent (never above zero) or not listened to (outgoing weights of zero)."""
    learner, network = built(model, [8, 6])
    weights = network.state_dict()
    silent, ignored = torch.tensor([0, 3]), torch.tensor([5, 1])
    weights["head.mlp.layers.0.bias"][silent] = -1000.0
    weights["head.mlp.layers.2.weight"][:, ignored] = 0.0
    weights["head.output.weight"][:, :3] = 0.0
    batch = tensor_batch(TABLE.train, np.arange(200))
    importance = taylor_importance(network, [batch], lambda logits, _: logits)
    kept = most_important(importance, 0.5)
    assert [k.tolist() for k in kept] == [[2, 4, 6, 7], [3, 4, 5]]
    smaller = learner.build_network(learner.config.model_copy(update={"hidden_units": (4, 3)}))
    smaller.load_state_dict(pruned_weights(network, kept))
    dense, ids = torch.from_numpy(TABLE.valid.dense), torch.from_numpy(TABLE.valid.ids)
    torch.testing.assert_close(smaller.eval()(dense, ids), network.eval()(dense, ids))
    assert smaller(dense, ids).std() > 0.001
