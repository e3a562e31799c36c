"""What two looked-up vectors say of a row: their product and their biases' sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dynens.batch import FieldPair
from dynens.layers.columns import take_columns

Table = tuple[Tensor, Tensor]
"""Vectors (R, H) and biases (R,) of a field's ids."""


def shortened(left: Tensor, right: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Vectors (R, length) and (C, length) whose products are nearest to those of (R, H), (C, H).

    The singular value decomposition of `left @ right.T`, which is never formed: one of the small
    product of both sides' triangular factors.

    References:
        Eckart and Young, "The approximation of one matrix by another of lower rank", 1936.
    """
    (q_left, r_left), (q_right, r_right) = map(torch.linalg.qr, (left.double(), right.double()))
    u, s, v = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    root = s[:length].sqrt()
    sides = q_left @ (u[:, :length] * root), q_right @ (v[:length].T * root)
    missing = length - len(root)  # where one side has fewer ids than that
    short, other = (nn.functional.pad(side, (0, missing)).float() for side in sides)
    return short, other


def added(
    products: Sequence[tuple[Table, Table]], weights: Sequence[float], length: int
) -> tuple[Table, Table]:
    """Tables (R, length) and (C, length) of a weighted sum of products over the same two fields."""
    sides = zip(products, weights, strict=True)
    scaled = [((w * x, w * c), (y, w * d)) for ((x, c), (y, d)), w in sides]
    sums = []
    for side in zip(*scaled, strict=True):
        vectors, biases = zip(*side, strict=True)
        sums.append((torch.cat(vectors, dim=1), torch.stack(biases).sum(0)))
    (left, left_bias), (right, right_bias) = sums
    left, right = shortened(left, right, length)
    return (left, left_bias), (right, right_bias)


class PairProduct(nn.Module):
    """`x_aᵀ y_b + c_a + d_b` of a row whose two fields have the ids a and b; zero until `fill`.

    Args:
        pair: the fields.
        width: H, the length of the vectors.
    """

    def __init__(self, pair: FieldPair, width: int) -> None:
        super().__init__()
        self.pair = pair
        for number, size in enumerate(pair.sizes):
            self.register_buffer(f"vectors{number}", torch.zeros(size, width))
            self.register_buffer(f"bias{number}", torch.zeros(size))

    @classmethod
    def of(cls, pair: FieldPair, tables: tuple[Table, Table]) -> PairProduct:
        """The product of given tables."""
        product = cls(pair, tables[0][0].shape[1])
        product.fill(tables)
        return product

    def fill(self, tables: tuple[Table, Table]) -> None:
        """Take over both fields' tables."""
        for number, (vectors, bias) in enumerate(tables):
            getattr(self, f"vectors{number}").copy_(vectors)
            getattr(self, f"bias{number}").copy_(bias)

    def forward(self, ids: Tensor, context_rows: Tensor | None = None) -> Tensor:
        """(N, W) → (N,); `context_rows` as for `dynens.models.twin.InferenceTwin`."""
        left, left_bias = self._looked_up(0, ids, context_rows)
        right, right_bias = self._looked_up(1, ids, context_rows)
        return (left * right).sum(dim=1) + left_bias + right_bias

    def _looked_up(self, number: int, ids: Tensor, context_rows: Tensor | None) -> Table:
        """(M, H) and (M,); M = N unless the field is context."""
        if self.pair.is_context[number] and context_rows is not None:
            ids = ids[:context_rows]
        at = take_columns(ids, (self.pair.columns[number],)).squeeze(1).long()
        return getattr(self, f"vectors{number}")[at], getattr(self, f"bias{number}")[at]
