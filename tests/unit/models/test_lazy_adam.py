"""Adam over the rows of a table that a batch has read."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from dynens.batch import FeatureLayout, SparseField
from dynens.config.learner import OptimizerConfig
from dynens.models.defaults import default_embedding_optimizer, resolve_config
from dynens.models.dnn import DNNHead, DNNLearner
from dynens.models.network import CTRNetwork
from dynens.models.optim import (
    LazyAdam,
    WeightAverage,
    build_optimizer,
    clip_gradients,
    set_learning_rate,
)
from tests.unit.models.tables import config_of, tiny_table

TABLE = tiny_table(multi_valued=True)
RATE, L2 = 0.01, 0.1


def bag_of(rows: int = 4, *, sparse: bool = True) -> nn.EmbeddingBag:
    bag = nn.EmbeddingBag(rows, 2, mode="sum", sparse=sparse)
    with torch.no_grad():
        bag.weight.copy_(torch.arange(1.0, 1.0 + 2 * rows).view(rows, 2) / 10)
    return bag


def lazy_adam(bag: nn.EmbeddingBag, l2: float = L2) -> LazyAdam:
    beside = nn.Parameter(torch.zeros(1))
    options = OptimizerConfig(learning_rate=RATE / 4, embedding_l2=l2, embedding_rate_factor=4)
    return LazyAdam([{"params": [beside]}], options, bag.weight)


def take_step(bag: nn.EmbeddingBag, optimizer: torch.optim.Optimizer, ids: list[list[int]]) -> None:
    optimizer.zero_grad(set_to_none=True)
    (bag(torch.tensor(ids)) * torch.tensor([1.0, -2.0])).pow(2).sum().backward()
    optimizer.step()


def test_where_all_rows_are_read_it_is_adam() -> None:
    lazy, plain = bag_of(), bag_of(sparse=False)
    optimizers = lazy_adam(lazy), torch.optim.Adam(plain.parameters(), lr=RATE, weight_decay=L2)
    for ids in ([[0, 1], [2, 3], [3, 3]], [[1, 2], [0, 3], [0, 0]], [[3, 2], [1, 0], [2, 1]]):
        for bag, optimizer in zip((lazy, plain), optimizers, strict=True):
            take_step(bag, optimizer, ids)
        torch.testing.assert_close(lazy.weight, plain.weight)
        assert lazy.weight.grad is None
        set_learning_rate(optimizers[0], 0.5 * RATE / 4)
        set_learning_rate(optimizers[1], 0.5 * RATE)


def test_a_row_that_waits_gets_its_l2_when_it_is_read() -> None:
    bag = bag_of()
    optimizer, before = lazy_adam(bag), bag.weight.detach().clone()
    for _ in range(4):
        take_step(bag, optimizer, [[0]])
    torch.testing.assert_close(bag.weight[1:], before[1:], rtol=0, atol=0)
    take_step(bag, optimizer, [[2]])
    # The loss (w₁)² + (2 w₂)² has the gradient (2 w₁, 8 w₂); five steps have passed.
    gradient = torch.tensor([2.0, 8.0]) * before[2] + 5 * L2 * before[2]
    mean, square = 0.1 * gradient, 0.001 * gradient**2
    step = mean / (1 - 0.9**5) / (square / (1 - 0.999**5)).sqrt()
    torch.testing.assert_close(bag.weight[2], before[2] - RATE * step)


def test_sparse_gradients_are_clipped_with_the_others() -> None:
    bag = bag_of()
    bag(torch.tensor([[0, 1], [1, 2]])).sum().backward()  # (1, 2, 1) twice: a norm of √12
    clip_gradients(bag, 10.0)
    gradient = bag.weight.grad
    assert gradient is not None
    expected = torch.tensor([[1.0] * 2, [2.0] * 2, [1.0] * 2, [0.0] * 2])
    torch.testing.assert_close(gradient.to_dense(), expected)
    clip_gradients(bag, 0.5)
    torch.testing.assert_close(gradient.to_dense(), expected * 0.5 / math.sqrt(12))


def test_its_table_is_left_out_of_the_average() -> None:
    config = resolve_config(config_of(embedding_optimizer="lazy_adam"), TABLE.layout, 600)
    network = CTRNetwork(TABLE.layout, config, DNNHead, TABLE.stats)
    average = WeightAverage(network, 0.5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    (table,) = network.embeddings.parameters()
    as_it_is, output = table.clone(), network.get_parameter("head.output.bias").clone()
    with average.applied():
        assert torch.equal(table, as_it_is)
        assert torch.allclose(network.get_parameter("head.output.bias"), output - 1)


def test_a_network_trains_as_well_with_it_saves_and_exports(tmp_path: Path) -> None:
    aucs = {}
    for name in ("adam", "lazy_adam"):
        config = config_of(embedding_optimizer=name, max_epochs=8)
        learner = DNNLearner(config, TABLE.layout, TABLE.stats, 0)
        aucs[name] = learner.fit(TABLE.train, TABLE.valid).best_auc
    assert aucs["lazy_adam"] == pytest.approx(aucs["adam"], abs=0.01)
    logits = learner.predict_logits(TABLE.valid)
    learner.save(tmp_path)
    np.testing.assert_array_equal(DNNLearner.load(tmp_path).predict_logits(TABLE.valid), logits)
    learner.export_onnx(tmp_path / "m.onnx")
    feed = {"dense": TABLE.valid.dense, "ids": TABLE.valid.ids}
    exported = ort.InferenceSession(str(tmp_path / "m.onnx")).run(None, feed)[0]
    np.testing.assert_allclose(exported, logits, atol=1e-5)


def test_frozen_embeddings_need_none() -> None:
    config = config_of(embedding_optimizer="lazy_adam").model_copy(update={"random_features": True})
    config = resolve_config(config, TABLE.layout, 600)
    optimizer = build_optimizer(CTRNetwork(TABLE.layout, config, DNNHead, TABLE.stats), config)
    assert not isinstance(optimizer, LazyAdam)


def test_large_tables_have_it_by_default() -> None:
    large = FeatureLayout((), (SparseField("id", 2_000_000),))
    assert default_embedding_optimizer(large, 16) == "lazy_adam"
    assert default_embedding_optimizer(TABLE.layout, 16) == "adam"
