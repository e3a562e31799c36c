"""Explicit feature interactions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CrossNetwork(nn.Module):
    """DCN-V2 cross layers: `x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l`.

    References:
        Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021, eq. 1.
    """

    def __init__(self, input_dim: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(input_dim, input_dim) for _ in range(num_layers))

    def forward(self, x0: Tensor) -> Tensor:
        """(B, D) → (B, D)."""
        x = x0
        for layer in self.layers:
            x = x0 * layer(x) + x
        return x


def fm_second_order(factors: Tensor) -> Tensor:
    """Sum of the inner products of all pairs of fields: `½ Σ_k [(Σ_f v_fk)² - Σ_f v_fk²]`.

    Args:
        factors: (B, F, K), each field's factor already multiplied by its value.

    Returns:
        (B,).

    References:
        Rendle, "Factorization Machines", ICDM 2010, eq. 1 and lemma 3.1.
    """
    square_of_sum = factors.sum(dim=1).square()
    sum_of_squares = factors.square().sum(dim=1)
    return 0.5 * (square_of_sum - sum_of_squares).sum(dim=1)


class PairwiseInnerProducts(nn.Module):
    """The F·(F-1)/2 inner products `<v_i, v_j>`, i < j, in row-major order of (i, j).

    References:
        Qu et al., "Product-based Neural Networks for User Response Prediction", ICDM 2016, eq. 7.
    """

    left: Tensor
    right: Tensor

    def __init__(self, num_fields: int) -> None:
        super().__init__()
        pairs = torch.triu_indices(num_fields, num_fields, offset=1)
        self.register_buffer("left", pairs[0], persistent=False)
        self.register_buffer("right", pairs[1], persistent=False)
        self.output_dim = pairs.shape[1]

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, F, E) → (B, F·(F-1)/2)."""
        gram = torch.matmul(vectors, vectors.transpose(1, 2))
        return gram.flatten(1)[:, self.left * vectors.shape[1] + self.right]
