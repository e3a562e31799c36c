"""DNN: a multi-layer perceptron over the concatenated embeddings and dense inputs.

`x = [dense, e_1, …, e_F]`, `h = MLP(x)`, `logit = wᵀh + b`.

References:
    Covington et al., "Deep Neural Networks for YouTube Recommendations", RecSys 2016, section 3.
"""

from __future__ import annotations

from torch import Tensor, nn

from dynens.config.learner import LearnerConfig
from dynens.layers.blocks import MLP
from dynens.models.net_learner import NetLearner
from dynens.models.network import Head, HeadInputs, HeadShape


class DNNHead(Head):
    """(B, D), (B, F, E) → (B,)."""

    def __init__(self, shape: HeadShape, config: LearnerConfig) -> None:
        super().__init__(shape, config)
        self.mlp = MLP(shape.flat_dim, config.hidden_units, config.dropout or 0.0)
        self.output = nn.Linear(self.mlp.output_dim, 1)

    def features(self, inputs: HeadInputs) -> Tensor:
        hidden: Tensor = self.mlp(inputs.flat())
        return hidden

    def score(self, features: Tensor, inputs: HeadInputs) -> Tensor:
        logits: Tensor = self.output(features)
        return logits.squeeze(1)


class DNNLearner(NetLearner):
    head_class = DNNHead
