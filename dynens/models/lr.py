"""Logistic regression on ids and dense inputs.

`logit = b + wᵀ·dense + Σ_f w_f[id_f]`; a multi-valued field contributes the sum or
mean of its weights.

References:
    Richardson et al., "Predicting Clicks: Estimating the Click-Through Rate for New Ads", WWW 2007.
"""

from __future__ import annotations

from torch import Tensor, nn

from dynens.config.learner import LearnerConfig
from dynens.models.net_learner import NetLearner
from dynens.models.network import Head, HeadInputs, HeadShape


class LRHead(Head):
    """(B, D), (B, F, 1) → (B,). Its features are the inputs' own terms."""

    def __init__(self, shape: HeadShape, config: LearnerConfig) -> None:
        super().__init__(shape, config)
        self.dense = nn.Linear(shape.num_dense, 1)
        nn.init.zeros_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    @staticmethod
    def embedding_width(config: LearnerConfig) -> int:
        return 1

    def hidden(self, inputs: HeadInputs) -> tuple[Tensor, ...]:
        return (inputs.flat().whole(),)

    def score(self, features: Tensor, inputs: HeadInputs) -> Tensor:
        dense, embeddings = inputs.whole()
        logits: Tensor = self.dense(dense).squeeze(1) + embeddings.sum(dim=(1, 2))
        return logits


class LRLearner(NetLearner):
    head_class = LRHead
