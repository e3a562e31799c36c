"""IPNN: a deep network over the embeddings and their pairwise inner products.

`x = [dense, e_1, …, e_F, <e_1, e_2>, …, <e_{F-1}, e_F>]`, `logit = wᵀ MLP(x) + b`.

References:
    Qu et al., "Product-based Neural Networks for User Response Prediction", ICDM 2016, eq. 3 and 7.
"""

from __future__ import annotations

from torch import Tensor, nn

from dynens.config.learner import LearnerConfig
from dynens.layers.blocks import MLP
from dynens.layers.interactions import PairwiseInnerProducts
from dynens.models.net_learner import NetLearner
from dynens.models.network import Head, HeadInputs, HeadShape


class IPNNHead(Head):
    """(B, D), (B, F, E) → (B,)."""

    def __init__(self, shape: HeadShape, config: LearnerConfig) -> None:
        super().__init__(shape, config)
        self.products = PairwiseInnerProducts(shape.num_fields)
        input_dim = shape.flat_dim + self.products.output_dim
        self.mlp = MLP(input_dim, config.hidden_units, config.dropout or 0.0)
        self.output = nn.Linear(self.mlp.output_dim, 1)

    def features(self, inputs: HeadInputs) -> Tensor:
        x = inputs.flat().beside(self.products(inputs.embeddings), self.shape.flat_dim)
        hidden: Tensor = self.mlp(x)
        return hidden

    def score(self, features: Tensor, inputs: HeadInputs) -> Tensor:
        logits: Tensor = self.output(features)
        return logits.squeeze(1)


class IPNNLearner(NetLearner):
    head_class = IPNNHead
