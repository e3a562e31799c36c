"""DNN: a multi-layer perceptron over the concatenated embeddings and dense inputs.

`x = [dense, e_1, …, e_F]`, `h = MLP(x)`, `logit = wᵀh + b`.

References:
    Covington et al., "Deep Neural Networks for YouTube Recommendations", RecSys 2016, section 3.
"""

from __future__ import annotations

from dynens.config.learner import LearnerConfig
from dynens.layers.columns import Columns
from dynens.models.net_learner import NetLearner
from dynens.models.network import HeadInputs, HeadShape, PerceptronHead


class DNNHead(PerceptronHead):
    """(B, D), (B, F, E) → (B,)."""

    def __init__(self, shape: HeadShape, config: LearnerConfig) -> None:
        super().__init__(shape, config, shape.flat_dim)

    def perceptron_input(self, inputs: HeadInputs) -> Columns:
        return inputs.flat()


class DNNLearner(NetLearner):
    head_class = DNNHead
