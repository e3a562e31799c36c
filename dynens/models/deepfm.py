"""DeepFM: a factorization machine and a deep network that share their embeddings.

`logit = FM(x) + wᵀ MLP([dense, v_1, …, v_F]) + b`. The embedding of an id is `[w, v]`, of which the
deep network sees v.

References:
    Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction",
    IJCAI 2017, eq. 1-4.
"""

from __future__ import annotations

from torch import Tensor, nn

from dynens.config.learner import LearnerConfig
from dynens.layers.blocks import MLP
from dynens.models.fm import FMTerms
from dynens.models.net_learner import NetLearner
from dynens.models.network import Head, HeadInputs, HeadShape


class DeepFMHead(Head):
    """(B, D), (B, F, 1 + K) → (B,)."""

    def __init__(self, shape: HeadShape, config: LearnerConfig) -> None:
        super().__init__(shape, config)
        self.fm = FMTerms(shape.num_dense, config.embedding_dim)
        deep_dim = shape.num_dense + shape.num_fields * config.embedding_dim
        self.mlp = MLP(deep_dim, config.hidden_units, config.dropout or 0.0)
        self.output = nn.Linear(self.mlp.output_dim, 1)

    @staticmethod
    def embedding_width(config: LearnerConfig) -> int:
        return 1 + config.embedding_dim

    def hidden(self, inputs: HeadInputs) -> tuple[Tensor, ...]:
        return self.mlp.hidden(inputs.with_embeddings(lambda e: e[:, :, 1:]).flat())

    def score(self, features: Tensor, inputs: HeadInputs) -> Tensor:
        deep: Tensor = self.output(features).squeeze(1)
        logits: Tensor = self.fm(*inputs.whole()) + deep
        return logits


class DeepFMLearner(NetLearner):
    head_class = DeepFMHead
