"""Explicit feature interactions."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn

from dynens.layers.blocks import square_map
from dynens.layers.columns import Block, Columns, linear


class CrossNetwork(nn.Module):
    """DCN-V2 cross layers: `x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l`.

    Args:
        input_dim: D.
        num_layers: how many.
        rank: of the W_l, which are then products of a (D, rank) and a (rank, D) matrix; 0: full.

    References:
        Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021, eq. 1 and section 4.1.
    """

    def __init__(self, input_dim: int, num_layers: int, rank: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(square_map(input_dim, rank) for _ in range(num_layers))

    def forward(self, inputs: Columns) -> Tensor:
        """(B, D) → (B, D)."""
        x0 = inputs.whole()
        x: Tensor | Columns = inputs
        out = x0
        for layer in self.layers:
            out = x0 * linear(layer, x) + out
            x = out
        return out


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

    def __init__(self, num_fields: int) -> None:
        super().__init__()
        self.position = {pair: k for k, pair in enumerate(combinations(range(num_fields), 2))}
        self.output_dim = len(self.position)

    def forward(self, vectors: Columns) -> Columns:
        """(B, F, E) → (B, F·(F-1)/2); of several blocks, products within and between them."""
        blocks = []
        for i, block in enumerate(vectors.blocks):
            if len(block.at) > 1 or len(vectors.blocks) == 1:
                blocks.append(self._within(block))
            blocks += [self._between(earlier, block) for earlier in vectors.blocks[:i]]
        return Columns(tuple(blocks))

    def _within(self, block: Block) -> Block:
        """(M, f, E) → (M, f·(f-1)/2)."""
        size = len(block.at)
        gram = torch.matmul(block.values, block.values.transpose(1, 2)).flatten(1)
        pairs = torch.tensor(
            [i * size + j for i, j in combinations(range(size), 2)],
            dtype=torch.int64,
            device=gram.device,
        )
        at = [self.position[pair] for pair in combinations(block.at, 2)]
        return Block(gram[:, pairs], at, block.is_shared)

    def _between(self, earlier: Block, later: Block) -> Block:
        """(M, f, E), (N, g, E) → (N, g·f). In this order one row of `earlier` is one product."""
        products = torch.matmul(later.values, earlier.values.transpose(1, 2)).flatten(1)
        at = [self.position[i, j] for j in later.at for i in earlier.at]
        return Block(products, at, earlier.is_shared and later.is_shared)
