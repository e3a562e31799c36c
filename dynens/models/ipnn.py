"""IPNN: a deep network over the embeddings and their pairwise inner products.

`x = [dense, e_1, …, e_F, <e_1, e_2>, …, <e_{F-1}, e_F>]`, `logit = wᵀ MLP(x) + b`.

References:
    Qu et al., "Product-based Neural Networks for User Response Prediction", ICDM 2016, eq. 3 and 7.
"""

from __future__ import annotations

from dynens.config.learner import LearnerConfig
from dynens.layers.columns import Columns
from dynens.layers.interactions import PairwiseInnerProducts
from dynens.models.net_learner import NetLearner
from dynens.models.network import HeadInputs, HeadShape, PerceptronHead


class IPNNHead(PerceptronHead):
    """(B, D), (B, F, E) → (B,)."""

    def __init__(self, shape: HeadShape, config: LearnerConfig) -> None:
        products = PairwiseInnerProducts(shape.num_fields)
        super().__init__(shape, config, shape.flat_dim + products.output_dim)
        self.products = products

    def perceptron_input(self, inputs: HeadInputs) -> Columns:
        return inputs.flat().beside(self.products(inputs.embeddings), self.shape.flat_dim)


class IPNNLearner(NetLearner):
    head_class = IPNNHead
