"""INT8 arithmetic simulated while a network trains, so that it learns to live with the rounding.

`quantize_graph` rounds the dense layers of an exported network: inputs to uint8 with ranges from
calibration rows, weights to int8 with one scale per output unit. Here the same layers do that in
float32, `x̂ = s·round(x/s)`, with the same scales and column factors, for the same blocks of columns
(what the candidates of a request share is multiplied apart). Their gradient passes the rounding as
if it were not there, and is zero where an input lies outside of its range.

Embedding tables that are large enough for int8 are not simulated: with one scale per column their
rounding hardly shows.

References:
    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, section 3 (with ranges of calibration rows in
    place of moving averages, as the served graph has them); Bengio et al., "Estimating or
    Propagating Gradients Through Stochastic Neurons for Conditional Computation", 2013
    (the straight-through estimator).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dynens.batch import EncodedBatch
from dynens.errors import ConfigError
from dynens.layers.blocks import MLP
from dynens.models.batches import prediction_batches
from dynens.models.network import CTRNetwork, PerceptronHead
from dynens.models.quantize import MAX_ACTIVATION, MAX_WEIGHT, MIN_WIDTH, InputScale, input_scale
from dynens.models.twin import InferenceTwin


def round_through(x: Tensor) -> Tensor:
    """Rounded to the nearest integer, halves to even; the gradient is that of the identity."""
    return x + (x.round() - x).detach()


def fake_quantize_input(x: Tensor, how: InputScale) -> Tensor:
    """(B, K) → (B, K): what is left of x in uint8."""
    factors = 1.0 if how.columns is None else torch.from_numpy(how.columns).to(x.device)
    steps = x / factors / how.scale
    inside = steps.clamp(-how.zero, MAX_ACTIVATION - how.zero)
    return round_through(inside) * how.scale * factors


def fake_quantize_weight(weight: Tensor, how: InputScale) -> Tensor:
    """(N, K) → (N, K): what is left of the weights of an input in int8, one scale per row."""
    factors = 1.0 if how.columns is None else torch.from_numpy(how.columns).to(weight.device)
    balanced = weight * factors
    scales = balanced.detach().abs().amax(dim=1, keepdim=True) / MAX_WEIGHT
    scales = torch.where(scales == 0, torch.ones_like(scales), scales)
    return round_through(balanced / scales) * scales / factors


class FakeQuantLinear(nn.Linear):
    """A linear map that can round like its INT8 form. It shares the parameters of `layer`.

    Args:
        layer: the map.
        blocks: columns of the input that are multiplied apart.
        is_rectified: whether the input comes from a ReLU, so that all columns have one scale.
    """

    def __init__(self, layer: nn.Linear, blocks: Sequence[Sequence[int]], is_rectified: bool):
        has_bias = layer.bias is not None
        super().__init__(layer.in_features, layer.out_features, has_bias, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.blocks = [torch.tensor(block, dtype=torch.int64) for block in blocks]
        self.is_rectified = is_rectified
        self.scales: list[InputScale] = []
        self.is_observing = False
        self.rounds_inputs = True
        self._low = self._high = torch.empty(0)

    def observe(self) -> None:
        """Compute in float32 from now on, and remember the range of every input column."""
        self.is_observing = True
        self._low = self.weight.new_full((self.in_features,), torch.inf)
        self._high = -self._low

    def settle(self) -> None:
        """Scales of what was observed, and of the weights as they are."""
        self.is_observing = False
        low, high = self._low.cpu().numpy(), self._high.cpu().numpy()
        weight = self.weight.detach().cpu().numpy().T
        self.scales = [
            input_scale(low[at], high[at], [] if self.is_rectified else [weight[at]])
            for at in (np.asarray(block) for block in self.blocks)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """(B, K) → (B, N) float32."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            if self.is_observing:
                self._low = torch.minimum(self._low, x.amin(dim=0))
                self._high = torch.maximum(self._high, x.amax(dim=0))
                return super().forward(x)
            products = [
                self._product(x, block.to(x.device), how)
                for block, how in zip(self.blocks, self.scales, strict=True)
            ]
            total = torch.stack(products).sum(dim=0) if len(products) > 1 else products[0]
            return total if self.bias is None else total + self.bias

    def _product(self, x: Tensor, block: Tensor, how: InputScale) -> Tensor:
        weight = self.weight
        if len(self.blocks) > 1:
            x, weight = x[:, block], weight[:, block]
        if min(weight.shape) >= MIN_WIDTH:
            weight = fake_quantize_weight(weight, how)
            if self.rounds_inputs or not self.training:
                x = fake_quantize_input(x, how)
        return nn.functional.linear(x, weight)


class Int8Simulation:
    """The dense layers of a perceptron as its INT8 form has them.

    Args:
        network: a network whose head is a perceptron.
        calibration: rows that set the ranges of inputs, those of the graph's quantisation.

    Raises:
        ConfigError: the head has dense layers outside of a perceptron.
    """

    def __init__(self, network: CTRNetwork, calibration: EncodedBatch) -> None:
        head = network.head
        if not isinstance(head, PerceptronHead):
            raise ConfigError(
                f"distill.quantisation_aware is on but the student's head is a "
                f"{type(head).__name__}; only perceptrons (dnn, ipnn) are simulated in INT8."
            )
        self.network = network
        self.calibration = calibration
        self._layers = _simulated(head.mlp, input_blocks(network, calibration.take(slice(0, 1))))

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """In this context the network's dense layers round; after it they are what they were."""
        originals = [(place, name, getattr(place, name)) for place, name, _ in self._layers]
        try:
            for place, name, layer in self._layers:
                setattr(place, name, layer)
            yield
        finally:
            for place, name, layer in originals:
                setattr(place, name, layer)

    def calibrate(self) -> None:
        """Take the ranges from the calibration rows, which pass the layers in float32."""
        layers = [layer for _, _, layer in self._layers]
        training, device = self.network.training, next(self.network.parameters()).device
        self.network.eval()
        for layer in layers:
            layer.observe()
        with torch.no_grad():
            for _, dense, ids in prediction_batches(self.calibration):
                self.network(dense.to(device), ids.to(device))
        for layer in layers:
            layer.settle()
        self.network.train(training)

    def round_inputs(self, yes: bool) -> None:
        """Whether training rounds inputs beside weights; evaluation always does."""
        for _, _, layer in self._layers:
            layer.rounds_inputs = yes


def _simulated(
    mlp: MLP, blocks: Sequence[Sequence[int]]
) -> list[tuple[nn.Module, str, FakeQuantLinear]]:
    """For each linear map of the perceptron its place, its name there and what simulates it."""
    layers = []
    for place in mlp.modules():
        for name, layer in place.named_children():
            if isinstance(layer, nn.Linear):
                is_first = layer is mlp.layers[0]
                columns = blocks if is_first else [range(layer.in_features)]
                layers.append((place, name, FakeQuantLinear(layer, columns, not is_first)))
    return layers


def input_blocks(network: CTRNetwork, row: EncodedBatch) -> list[list[int]]:
    """Columns of the perceptron's input that the exported graph multiplies apart: what candidates
    of a request share, and the rest. `row` is any row of the table."""
    twin = InferenceTwin(network).cpu()
    ((_, dense, ids),) = prediction_batches(row)
    assert isinstance(twin.head, PerceptronHead)
    with torch.no_grad():
        columns = twin.head.perceptron_input(twin.inputs(dense, ids, torch.tensor(1)))
    shared = [at for block in columns.blocks if block.is_shared for at in block.at]
    own = [at for block in columns.blocks if not block.is_shared for at in block.at]
    return [block for block in (shared, own) if block]
