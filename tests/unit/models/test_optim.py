"""Optimiser groups, schedules, weight average and arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dynens.config.base import validate
from dynens.config.learner import LearnerConfig
from dynens.models import defaults, optim
from dynens.models.defaults import resolve_config
from dynens.models.dnn import DNNHead
from dynens.models.network import CTRNetwork
from dynens.models.optim import (
    PlateauSchedule,
    WeightAverage,
    autocast,
    build_optimizer,
    clip_gradients,
    cyclic_cosine,
    learning_rate,
    reproducible,
    scale_learning_rate,
    set_learning_rate,
)
from tests.unit.models.tables import config_of, tiny_table

TABLE = tiny_table(multi_valued=True)


def test_plateau_schedule_decays_then_stops() -> None:
    schedule = PlateauSchedule(patience=2, max_decays=1)
    scores = [0.7, 0.8, 0.79, 0.8, 0.81, 0.5, 0.5]
    expected = ["improved", "improved", "wait", "decay", "improved", "wait", "stop"]
    assert [schedule.update(score) for score in scores] == expected


def test_cyclic_cosine_by_hand() -> None:
    assert cyclic_cosine(0, 4, 1.0) == pytest.approx(1.0)
    assert cyclic_cosine(2, 4, 1.0) == pytest.approx(0.5)
    assert cyclic_cosine(4, 4, 1.0) == pytest.approx(1.0)
    assert cyclic_cosine(3, 4, 2.0) == pytest.approx(1 - math.sqrt(0.5))


def test_embeddings_and_dense_weights_have_their_own_l2_and_rate() -> None:
    options = {"embedding_l2": 0.5, "dense_l2": 0.25, "embedding_rate_factor": 3.0}
    config = resolve_config(config_of(**options), TABLE.layout, 100)
    network = CTRNetwork(TABLE.layout, config, DNNHead, TABLE.stats)
    optimizer = build_optimizer(network, config)
    dense, tables = optimizer.param_groups
    assert tables["weight_decay"] == 0.5
    assert dense["weight_decay"] == 0.25
    assert tables["params"] == list(network.embeddings.parameters())
    assert len(tables["params"]) + len(dense["params"]) == len(list(network.parameters()))
    assert [dense["lr"], tables["lr"]] == pytest.approx([0.01, 0.03])
    set_learning_rate(optimizer, 0.5)
    scale_learning_rate(optimizer, 0.1)
    assert [dense["lr"], tables["lr"]] == pytest.approx([0.05, 0.15])


def test_weight_average_by_hand() -> None:
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    average = WeightAverage(layer, decay=0.5)
    with torch.no_grad():
        layer.weight.fill_(3.0)
    average.update()  # decay min(.5, 2/11): 1·2/11 + 3·9/11
    with average.applied():
        assert layer.weight.item() == pytest.approx(29 / 11)
    assert layer.weight.item() == pytest.approx(3.0)


def test_autocast_asked_for_is_on() -> None:
    with autocast("bf16", torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu")
    with autocast("fp32", torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("has_it", "bf16_seconds", "is_fast"),
    [(True, 0.5, True), (True, 0.9, False), (False, 0.1, False)],
)
def test_bf16_is_taken_where_it_is_there_and_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, has_it: bool, bf16_seconds: float, is_fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    seconds = {torch.bfloat16: bf16_seconds, torch.float32: 1.0}
    monkeypatch.setattr(optim, "product_seconds", seconds.__getitem__)
    optim.bf16_is_fast.cache_clear()
    assert optim.bf16_is_fast() is is_fast
    optim.bf16_is_fast.cache_clear()


@pytest.mark.parametrize(
    ("model", "device", "given", "settled"),
    [
        ("dnn", "cpu", "auto", "bf16"),
        ("dnn", "cpu", "fp32", "fp32"),
        ("dnn", "cuda", "auto", "fp32"),
        ("autorec", "cpu", "auto", "auto"),  # whose steps have no such products
    ],
)
def test_a_resolved_configuration_says_in_which_arithmetic_it_trains(
    monkeypatch: pytest.MonkeyPatch, model: str, device: str, given: str, settled: str
) -> None:
    monkeypatch.setattr(optim, "bf16_is_fast", lambda: True)
    monkeypatch.setattr(defaults, "cpu_may_have_bf16", lambda: True)
    monkeypatch.setattr(defaults, "resolve_device", lambda _: device)
    settings = {"model": model, "optimizer": {"precision": given}}
    config = validate(LearnerConfig, settings, "test")
    resolved = resolve_config(config, tiny_table().layout, 600)
    assert resolved.optimizer.precision == settled


def test_gradient_is_clipped_to_the_norm_and_left_alone_within_it() -> None:
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    clip_gradients(layer, 10.0)
    assert layer.weight.grad.tolist() == [[3.0, 4.0]]
    clip_gradients(layer, 1.0)
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[0.6, 0.8]]))


def test_reproducible_restores_threads_and_random_state() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with reproducible(3, threads + 1):
        assert torch.get_num_threads() == threads + 1
        torch.rand(4)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_scale_learning_rate() -> None:
    config = resolve_config(config_of(), TABLE.layout, 100)
    optimizer = build_optimizer(CTRNetwork(TABLE.layout, config, DNNHead, TABLE.stats), config)
    scale_learning_rate(optimizer, 0.1)
    assert learning_rate(optimizer) == pytest.approx(0.001)
