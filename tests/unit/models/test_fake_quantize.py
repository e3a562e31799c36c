"""INT8 simulated in training: by hand, and equal to ONNX Runtime's integer arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dynens.config.learner import LearnerConfig
from dynens.ensemble.scorer import PoolScorer
from dynens.errors import ConfigError
from dynens.models.fake_quantize import (
    FakeQuantLinear,
    Int8Simulation,
    fake_quantize_input,
    fake_quantize_weight,
    round_through,
)
from dynens.models.net_learner import NetLearner
from dynens.models.quantize import InputScale, quantize_graph
from dynens.models.registry import build_learner
from tests.unit.models.tables import TinyTable, tiny_table


def trained(table: TinyTable, **config: object) -> NetLearner:
    settings = {"hidden_units": [32, 16], "optimizer": {"max_epochs": 2}, **config}
    learner = build_learner(LearnerConfig.model_validate(settings), table.layout, table.stats, 1)
    learner.fit(table.train, table.valid)
    assert isinstance(learner, NetLearner)
    return learner


def test_the_gradient_passes_the_rounding() -> None:
    x = torch.tensor([0.4, 0.5, 1.5, -2.7], requires_grad=True)
    rounded = round_through(x)
    (rounded * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert rounded.tolist() == [0.0, 0.0, 2.0, -3.0]  # halves to even, as QuantizeLinear does
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_inputs_are_rounded_to_steps_and_clipped_to_their_range() -> None:
    """Steps of ½ from -51·½ = -25.5 to 204·½ = 102; outside of it the gradient is zero."""
    x = torch.tensor([[0.6, -25.6, 102.3, -1.3]], requires_grad=True)
    rounded = fake_quantize_input(x, InputScale(None, 0.5, 51))
    rounded.sum().backward()
    assert rounded.tolist() == [[0.5, -25.5, 102.0, -1.5]]
    assert x.grad is not None
    assert x.grad.tolist() == [[1.0, 0.0, 0.0, 1.0]]


def test_column_factors_make_steps_of_their_own() -> None:
    how = InputScale(np.array([1.0, 4.0], np.float32), 0.5, 0)
    rounded = fake_quantize_input(torch.tensor([[1.3, 1.3]]), how)
    assert rounded.tolist() == [[1.5, 2.0]]  # steps of ½ and of 2


def test_weights_have_a_scale_per_output_unit() -> None:
    """[63, 31.4] in steps of 1, [0.63, 0.004] in steps of 0.01, zeros as they are."""
    weight = torch.tensor([[63.0, 31.4], [0.63, 0.004], [0.0, 0.0]])
    rounded = fake_quantize_weight(weight, InputScale(None, 1.0, 0))
    torch.testing.assert_close(rounded, torch.tensor([[63.0, 31.0], [0.63, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize("context", [(0, 0), (1, 2)])
@pytest.mark.parametrize(("model", "branches"), [("dnn", 1), ("dnn", 3), ("ipnn", 1)])
def test_simulated_logits_are_those_of_the_int8_graph(
    tmp_path: Path, model: str, branches: int, context: tuple[int, int]
) -> None:
    table = tiny_table(num_fields=6, multi_valued=True, context=context)
    learner = trained(table, model=model, branches=branches)
    learner.export_onnx(tmp_path / "fp32.onnx")
    assert quantize_graph(tmp_path / "fp32.onnx", table.train, tmp_path / "int8.onnx")
    graphs = PoolScorer({n: tmp_path / f"{n}.onnx" for n in ("fp32", "int8")}).logits(table.valid)
    before = learner.predict_logits(table.valid)
    simulation = Int8Simulation(learner.networks_[0], table.train)
    with simulation.installed():
        simulation.calibrate()
        simulated = learner.predict_logits(table.valid)
    error = np.abs(simulated - graphs["int8"])
    # The last bit of a sum may tip a value over to the next step, in a row here and there.
    assert np.quantile(error, 0.95) < 1e-5
    assert error.max() < 0.3 * np.abs(graphs["fp32"] - graphs["int8"]).max()
    np.testing.assert_array_equal(learner.predict_logits(table.valid), before)


def test_training_may_round_weights_alone_and_evaluation_rounds_both() -> None:
    layer = nn.Linear(8, 8, bias=False)
    nn.init.eye_(layer.weight)
    rounding = FakeQuantLinear(layer, [range(8)], is_rectified=True)
    assert rounding.weight is layer.weight
    rounding.observe()
    rounding(torch.tensor([[0.0, *[255.0] * 7]]))
    rounding.settle()
    x = torch.full((1, 8), 0.75)
    rounding.rounds_inputs = False
    assert rounding(x).tolist() == [[0.75] * 8]
    rounding.eval()
    assert rounding(x).tolist() == [[1.0] * 8]
    rounding.train()
    rounding.rounds_inputs = True
    assert rounding(x).tolist() == [[1.0] * 8]


def test_saved_names_and_parameters_stay_the_same() -> None:
    table = tiny_table()
    network = trained(table, model="dnn").networks_[0]
    names, parameters = list(network.state_dict()), list(network.parameters())
    with Int8Simulation(network, table.train).installed():
        assert list(network.state_dict()) == names
        assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))


def test_only_perceptrons_are_simulated() -> None:
    table = tiny_table()
    network = trained(table, model="dcnv2").networks_[0]
    with pytest.raises(ConfigError, match="head is a DCNv2Head; only perceptrons"):
        Int8Simulation(network, table.train)
