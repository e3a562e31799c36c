"""Dense blocks shared by the heads."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear → ReLU → dropout, once per hidden layer; no output layer.

    `h_{l+1} = dropout(relu(W_l h_l + b_l))`; without hidden layers it is the identity.
    """

    def __init__(self, input_dim: int, hidden_units: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for units in hidden_units:
            layers += [nn.Linear(input_dim, units), nn.ReLU()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            input_dim = units
        self.layers = nn.Sequential(*layers)
        self.output_dim = input_dim

    def forward(self, x: Tensor) -> Tensor:
        """(B, input_dim) → (B, output_dim)."""
        out: Tensor = self.layers(x)
        return out
