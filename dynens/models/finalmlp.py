"""FinalMLP: two gated deep streams, fused by a multi-head bilinear form.

With `x = [dense, e_1, …, e_F]`, stream s sees `g_s = 2σ(G_s x + c_s) ⊙ x` and gives
`o_s = MLP_s(g_s)`. Both are cut in K heads, and
`logit = b + w_1ᵀ o_1 + w_2ᵀ o_2 + Σ_k o_{1,k}ᵀ W_k o_{2,k}`.
The paper's gates look at chosen fields; ours look at all of them, as a table names no such choice.
On wide tables `G_s` has a low rank.

References:
    Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023, eq. 4-9.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dynens.config.learner import LearnerConfig
from dynens.layers.blocks import MLP, square_map
from dynens.models.net_learner import NetLearner
from dynens.models.network import Head, HeadInputs, HeadShape


class BilinearFusion(nn.Module):
    """`b + w_1ᵀ o_1 + w_2ᵀ o_2 + Σ_k o_{1,k}ᵀ W_k o_{2,k}` over K heads.

    Args:
        input_dim: of each stream, a multiple of `num_heads`.
        num_heads: K.
    """

    def __init__(self, input_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = input_dim // num_heads
        self.linear = nn.Linear(2 * input_dim, 1)
        self.weight = nn.Parameter(torch.empty(num_heads, self.head_dim, self.head_dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, streams: Tensor) -> Tensor:
        """(B, 2 · input_dim), both streams side by side → (B,)."""
        linear: Tensor = self.linear(streams).squeeze(1)
        first, second = streams.chunk(2, dim=1)
        left = first.view(-1, self.num_heads, self.head_dim).transpose(0, 1)
        right = second.view(-1, self.num_heads, self.head_dim).transpose(0, 1)
        return linear + (torch.matmul(left, self.weight) * right).sum(dim=(0, 2))


class FinalMLPHead(Head):
    """(B, D), (B, F, E) → (B,)."""

    def __init__(self, shape: HeadShape, config: LearnerConfig) -> None:
        super().__init__(shape, config)
        dropout = config.dropout or 0.0
        self.gates = nn.ModuleList(square_map(shape.flat_dim, config.rank or 0) for _ in range(2))
        self.streams = nn.ModuleList(
            MLP(shape.flat_dim, config.hidden_units, dropout) for _ in range(2)
        )
        self.fusion = BilinearFusion(config.hidden_units[-1], config.fusion_heads)

    def hidden(self, inputs: HeadInputs) -> tuple[Tensor, ...]:
        x = inputs.flat()
        whole = x.whole()
        streams = []
        for gate, stream in zip(self.gates, self.streams, strict=True):
            assert isinstance(stream, MLP)
            streams.append(stream.hidden(2 * torch.sigmoid(x.linear(gate)) * whole))
        return tuple(torch.cat(depth, dim=1) for depth in zip(*streams, strict=True))

    def score(self, features: Tensor, inputs: HeadInputs) -> Tensor:
        logits: Tensor = self.fusion(features)
        return logits


class FinalMLPLearner(NetLearner):
    head_class = FinalMLPHead
