"""MaskNet, parallel form: blocks that see the embeddings through masks made from all inputs.

With `v = [dense, e_1, …, e_F]` and `n = [dense, LN(e_1), …, LN(e_F)]`, block k is
`o_k = relu(LN(W_k (m_k ⊙ n)))` with the instance-guided mask
`m_k = W_k² relu(W_k¹ v + b_k¹) + b_k²`; `logit = wᵀ MLP([o_1, …, o_K]) + b`.

References:
    Wang et al., "MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by
    Instance-Guided Mask", DLP-KDD 2021, eq. 3-7 and figure 3(b).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dynens.config.learner import LearnerConfig
from dynens.layers.blocks import MLP
from dynens.layers.columns import Columns, linear
from dynens.models.net_learner import NetLearner
from dynens.models.network import Head, HeadInputs, HeadShape


class MaskBlock(nn.Module):
    """One mask block: `relu(LN(W (mask(v) ⊙ n)))`.

    Args:
        input_dim: of v and n.
        output_dim: of the block, and of the mask's hidden layer.
    """

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.mask = nn.Sequential(
            nn.Linear(input_dim, output_dim), nn.ReLU(), nn.Linear(output_dim, input_dim)
        )
        self.hidden = nn.Linear(input_dim, output_dim, bias=False)
        self.norm = nn.LayerNorm(output_dim)

    def forward(self, guide: Columns, normed: Tensor) -> Tensor:
        """(B, input_dim) twice → (B, output_dim)."""
        first, *rest = self.mask
        mask = linear(first, guide)
        for layer in rest:
            mask = layer(mask)
        return torch.relu(self.norm(self.hidden(mask * normed)))


class MaskNetHead(Head):
    """(B, D), (B, F, E) → (B,)."""

    def __init__(self, shape: HeadShape, config: LearnerConfig) -> None:
        super().__init__(shape, config)
        first, *rest = config.hidden_units
        block_dim = max(first // config.mask_blocks, 1)
        self.norm = nn.LayerNorm(shape.embedding_dim)
        self.blocks = nn.ModuleList(
            MaskBlock(shape.flat_dim, block_dim) for _ in range(config.mask_blocks)
        )
        self.mlp = MLP(block_dim * config.mask_blocks, rest, config.dropout or 0.0)
        self.output = nn.Linear(self.mlp.output_dim, 1)

    def hidden(self, inputs: HeadInputs) -> tuple[Tensor, ...]:
        guide = inputs.flat()
        normed = inputs.with_embeddings(self.norm).flat().whole()
        blocks = torch.cat([block(guide, normed) for block in self.blocks], 1)
        deeper = self.mlp.hidden(blocks)
        return (blocks, *deeper) if self.mlp.ends else deeper

    def score(self, features: Tensor, inputs: HeadInputs) -> Tensor:
        logits: Tensor = self.output(features)
        return logits.squeeze(1)


class MaskNetLearner(NetLearner):
    head_class = MaskNetHead
