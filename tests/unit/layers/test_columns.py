"""Inputs in blocks of columns against the same inputs in one piece."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dynens.layers.blocks import square_map
from dynens.layers.columns import Block, Columns, expand_rows
from dynens.layers.interactions import CrossNetwork, PairwiseInnerProducts


def blocks(shared: Tensor, own: Tensor) -> Columns:
    width = shared.shape[1]
    at = range(width, width + own.shape[1])
    return Columns((Block(shared, range(width), True), Block(own, at)))


def whole(shared: Tensor, own: Tensor) -> Tensor:
    return torch.cat([shared.expand(len(own), *shared.shape[1:]), own], dim=1)


def test_linear_by_hand() -> None:
    layer = nn.Linear(3, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 10.0, 100.0]]))
        layer.bias.fill_(0.5)
    # Columns 0 and 2 are shared: 1·1 + 100·3 + .5, plus 10·2 and 10·4.
    shared = Block(torch.tensor([[1.0, 3.0]]), (0, 2), True)
    own = Block(torch.tensor([[2.0], [4.0]]), (1,))
    assert Columns((shared, own)).linear(layer).tolist() == [[321.5], [341.5]]


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("shared_rows", [1, 4])
def test_blocks_equal_the_whole(shared_rows: int, rank: int) -> None:
    torch.manual_seed(0)
    shared, own = torch.randn(shared_rows, 5), torch.randn(4, 3)
    columns, joined = blocks(shared, own), whole(shared, own)
    assert columns.whole().tolist() == joined.tolist()
    layer, square, cross = nn.Linear(8, 6), square_map(8, rank), CrossNetwork(8, 2, rank)
    torch.testing.assert_close(columns.linear(layer), layer(joined))
    torch.testing.assert_close(columns.linear(square), square(joined))
    torch.testing.assert_close(cross(columns), cross(Columns.of(joined)))


@pytest.mark.parametrize("shared_rows", [1, 4])
@pytest.mark.parametrize(("num_shared", "num_own"), [(2, 3), (13, 1), (13, 4)])
def test_inner_products_of_blocks(shared_rows: int, num_shared: int, num_own: int) -> None:
    torch.manual_seed(0)
    shared, own = torch.randn(shared_rows, num_shared, 2), torch.randn(4, num_own, 2)
    products = PairwiseInnerProducts(num_shared + num_own)
    layer = nn.Linear(products.output_dim, 3)
    joined = whole(shared, own)
    pairs = [
        (joined[:, i] * joined[:, j]).sum(dim=1)
        for i in range(num_shared + num_own)
        for j in range(i + 1, num_shared + num_own)
    ]
    expected = layer(torch.stack(pairs, dim=1))
    torch.testing.assert_close(products(blocks(shared, own)).linear(layer), expected)
    torch.testing.assert_close(products(Columns.of(joined)).linear(layer), expected)


def test_expand_rows() -> None:
    assert expand_rows(torch.tensor([[1.0, 2.0]]), torch.zeros(2, 1)).tolist() == [[1, 2], [1, 2]]
