"""Dense blocks shared by the heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dynens.layers.columns import Columns


class ByteDropout(nn.Module):
    """Dropout whose mask costs one random byte per unit.

    In training, `y = x · m / (1 - p)` with `m ~ Bernoulli(1 - p)` and `p` rounded to a multiple
    of 1/256; the identity otherwise. PyTorch's own mask draws a double per unit, which on one
    core is 40 % of the time of a DNN step (`benchmarks/training_speed.py`).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.num_dropped = round(256 * p)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept."""
        if not self.training or self.num_dropped == 0:
            return x
        words = torch.empty(x.numel() // 8 + 1, dtype=torch.int64, device=x.device)
        random_bytes = words.random_(-(2**63), None).view(torch.uint8)[: x.numel()]
        keep = (random_bytes >= self.num_dropped).view(x.shape)
        return x * (keep.to(x.dtype) * (256 / (256 - self.num_dropped)))


def square_map(dim: int, rank: int) -> nn.Module:
    """(B, dim) → (B, dim): `W x + b`, where a positive `rank` below dim/2 makes it `U (V x) + b`.

    References:
        Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021, section 4.1 (low rank).
    """
    if not 0 < rank < dim / 2:
        return nn.Linear(dim, dim)
    return nn.Sequential(nn.Linear(dim, rank, bias=False), nn.Linear(rank, dim))


class BranchLinear(nn.Module):
    """One linear map per branch: (B, K·in) → (B, K·out), `y_k = W_k x_k + b_k`."""

    def __init__(self, input_dim: int, output_dim: int, branches: int) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.maps = nn.ModuleList(nn.Linear(input_dim, output_dim) for _ in range(branches))

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self.input_dim, dim=1)
        return torch.cat([m(part) for m, part in zip(self.maps, parts, strict=True)], dim=1)


def branch_linear(input_dim: int, output_dim: int, branches: int) -> nn.Module:
    """`BranchLinear`, or a plain linear map for one branch."""
    if branches == 1:
        return nn.Linear(input_dim, output_dim)
    return BranchLinear(input_dim, output_dim, branches)


class MLP(nn.Module):
    """Linear → ReLU → dropout, once per hidden layer; no output layer.

    `h_{l+1} = dropout(relu(W_l h_l + b_l))`; without hidden layers it is the identity. Several
    branches read the same input and go on side by side, each with `hidden_units` of its own.

    Args:
        input_dim: columns of the input.
        hidden_units: widths of one branch's layers.
        dropout: dropped share of units.
        branches: K, how many; `output_dim` is K times the last width.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_units: Sequence[int],
        dropout: float = 0.0,
        branches: int = 1,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.ends: list[int] = []
        for depth, units in enumerate(hidden_units):
            if depth == 0:
                layers.append(nn.Linear(input_dim, branches * units))
            else:
                layers.append(branch_linear(input_dim, units, branches))
            layers.append(nn.ReLU())
            if dropout > 0:
                layers.append(ByteDropout(dropout))
            self.ends.append(len(layers))
            input_dim = units
        self.layers = nn.Sequential(*layers)
        self.output_dim = branches * input_dim if hidden_units else input_dim

    def forward(self, x: Tensor | Columns) -> Tensor:
        """(B, input_dim) → (B, output_dim)."""
        return self.hidden(x)[-1]

    def hidden(self, x: Tensor | Columns) -> tuple[Tensor, ...]:
        """(B, input_dim) → the output of every hidden layer; without any, the input itself."""
        outputs: list[Tensor] = []
        for end, layer in enumerate(self.layers, start=1):
            x = x.linear(layer) if isinstance(x, Columns) else layer(x)
            if end in self.ends:
                outputs.append(x)
        if not outputs:
            outputs.append(x.whole() if isinstance(x, Columns) else x)
        return tuple(outputs)
