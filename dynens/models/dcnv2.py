"""DCN-V2, parallel form: a cross network beside a deep network over the same input.

`x_0 = [dense, e_1, …, e_F]`, `c = Cross(x_0)`, `h = MLP(x_0)`, `logit = wᵀ[c, h] + b`, with
`x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l`.

References:
    Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021, eq. 1 and figure 1(b).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dynens.config.learner import LearnerConfig
from dynens.layers.blocks import MLP
from dynens.layers.interactions import CrossNetwork
from dynens.models.net_learner import NetLearner
from dynens.models.network import Head, HeadInputs, HeadShape


class DCNv2Head(Head):
    """(B, D), (B, F, E) → (B,)."""

    def __init__(self, shape: HeadShape, config: LearnerConfig) -> None:
        super().__init__(shape, config)
        self.cross = CrossNetwork(shape.flat_dim, config.cross_layers, config.rank or 0)
        self.mlp = MLP(shape.flat_dim, config.hidden_units, config.dropout or 0.0)
        self.output = nn.Linear(shape.flat_dim + self.mlp.output_dim, 1)

    def hidden(self, inputs: HeadInputs) -> tuple[Tensor, ...]:
        x0 = inputs.flat()
        crossed = self.cross(x0)
        *below, last = self.mlp.hidden(x0)
        return (*below, torch.cat([crossed, last], dim=1))

    def score(self, features: Tensor, inputs: HeadInputs) -> Tensor:
        logits: Tensor = self.output(features)
        return logits.squeeze(1)


class DCNv2Learner(NetLearner):
    head_class = DCNv2Head
