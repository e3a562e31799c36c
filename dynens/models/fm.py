"""Factorization machine over ids and dense inputs.

`logit = b + Σ_i w_i x_i + Σ_{i<j} <v_i, v_j> x_i x_j`, where the x_i are the dense inputs and the
one-hot ids. The embedding of an id is `[w, v]`.

References:
    Rendle, "Factorization Machines", ICDM 2010, eq. 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dynens.config.learner import LearnerConfig
from dynens.layers.interactions import fm_second_order
from dynens.models.net_learner import NetLearner
from dynens.models.network import Head, HeadInputs, HeadShape


class FMTerms(nn.Module):
    """First- and second-order terms of a factorization machine.

    Args:
        num_dense: dense inputs.
        num_factors: K, the length of every factor v.
    """

    def __init__(self, num_dense: int, num_factors: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_dense, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.dense_factors = nn.Parameter(torch.randn(num_dense, num_factors) * 0.01)

    def factors(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """(B, D), (B, F, 1 + K) → (B, D + F, K): every input's factor times its value."""
        return torch.cat([dense.unsqueeze(2) * self.dense_factors, embeddings[:, :, 1:]], dim=1)

    def first_order(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """(B, D), (B, F, 1 + K) → (B,)."""
        terms: Tensor = self.linear(dense).squeeze(1) + embeddings[:, :, 0].sum(dim=1)
        return terms

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        """(B, D), (B, F, 1 + K) → (B,)."""
        second = fm_second_order(self.factors(dense, embeddings).float())
        return self.first_order(dense, embeddings) + second


class FMHead(Head):
    """(B, D), (B, F, 1 + K) → (B,). Its features are the pooled factors Σ_i x_i v_i."""

    def __init__(self, shape: HeadShape, config: LearnerConfig) -> None:
        super().__init__(shape, config)
        self.fm = FMTerms(shape.num_dense, config.embedding_dim)

    @staticmethod
    def embedding_width(config: LearnerConfig) -> int:
        return 1 + config.embedding_dim

    def hidden(self, inputs: HeadInputs) -> tuple[Tensor, ...]:
        return (self.fm.factors(*inputs.whole()).sum(dim=1),)

    def score(self, features: Tensor, inputs: HeadInputs) -> Tensor:
        logits: Tensor = self.fm(*inputs.whole())
        return logits

    def forward(self, inputs: HeadInputs) -> Tensor:
        """Without the features, which the logit does not need."""
        logits: Tensor = self.fm(*inputs.whole())
        return logits


class FMLearner(NetLearner):
    head_class = FMHead
