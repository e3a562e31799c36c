"""Structured pruning of a perceptron: whole hidden units go, so that its layers become narrower.

Zeros scattered over a weight matrix save nothing in ONNX Runtime; fewer rows and columns do.

References:
    Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.1 (the L1 norm);
    Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference",
    ICLR 2017, section 2.2 (Taylor expansion), and "Importance Estimation for Neural Network
    Pruning", CVPR 2019. Both cut a few units at a time from the whole network; here every layer
    loses its share at once, so that the result has a shape that can be trained from scratch, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from dynens.models.batches import TensorBatch
from dynens.models.network import CTRNetwork, PerceptronHead

Weights = dict[str, Tensor]
Loss = Callable[[Tensor, TensorBatch], Tensor]
"""(B,) logits of a batch → (B,) losses."""


def magnitude_importance(network: CTRNetwork) -> list[Tensor]:
    """(H_k,) of every hidden layer: Σ_i |w_i| over a unit's incoming weights."""
    state = network.state_dict()
    return [state[f"{name}.weight"].abs().sum(dim=1) for name in _hidden_maps(network)]


def taylor_importance(
    network: CTRNetwork, batches: Iterable[TensorBatch], loss: Loss
) -> list[Tensor]:
    """(H_k,) of every hidden layer: the mean over rows of |∂L/∂h · h|.

    To first order in the unit's output h, that is how much a row's loss changes without the unit.
    """
    training = network.training
    network.eval()
    totals: list[Tensor] | None = None
    rows = 0
    for batch in batches:
        inputs = network.inputs(batch.dense, batch.ids, batch.stats)
        hidden = network.head.hidden(inputs)
        logits = network.head.score(hidden[-1], inputs)
        gradients = torch.autograd.grad(loss(logits, batch).sum(), hidden)
        parts = [(h * g).abs().sum(dim=0) for h, g in zip(hidden, gradients, strict=True)]
        found = [part.detach() for part in parts]
        totals = found if totals is None else [a + b for a, b in zip(totals, found, strict=True)]
        rows += len(batch)
    assert totals is not None
    network.train(training)
    return [total / rows for total in totals]


def most_important(importance: Sequence[Tensor], share: float) -> list[Tensor]:
    """Of every layer the units that stay when `share` of them go, at least one, in their order."""
    kept = []
    for values in importance:
        count = max(round(len(values) * (1 - share)), 1)
        kept.append(values.topk(count).indices.sort().values)
    return kept


def pruned_weights(network: CTRNetwork, kept: Sequence[Tensor]) -> Weights:
    """The network's state without all units but the `kept` ones of every hidden layer; it fits one
    with `hidden_units` of as many."""
    weights = dict(network.state_dict())
    below: Tensor | slice = slice(None)
    for name, units in zip([*_hidden_maps(network), "head.output"], [*kept, None], strict=True):
        weight, bias = weights[f"{name}.weight"][:, below], weights[f"{name}.bias"]
        if units is not None:
            weight, bias, below = weight[units], bias[units], units
        weights[f"{name}.weight"], weights[f"{name}.bias"] = weight, bias
    return weights


def _hidden_maps(network: CTRNetwork) -> list[str]:
    """Names of the hidden layers' linear maps, from the input up."""
    head = network.head
    assert isinstance(head, PerceptronHead)
    assert head.branches == 1
    layers = head.mlp.layers.named_children()
    return [f"head.mlp.layers.{name}" for name, layer in layers if isinstance(layer, nn.Linear)]
