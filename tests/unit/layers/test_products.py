"""Products of looked-up vectors."""

from __future__ import annotations

import pytest
import torch

from dynens.batch import FieldPair
from dynens.layers.products import PairProduct, added, shortened

PAIR = FieldPair(columns=(0, 2), sizes=(4, 3), is_context=(True, False))
IDS = torch.tensor([[1, 9, 0], [3, 9, 2], [1, 9, 2]], dtype=torch.int32)


def filled() -> PairProduct:
    generator = torch.Generator().manual_seed(0)
    sides = [
        (torch.randn(n, 5, generator=generator), torch.randn(n, generator=generator))
        for n in PAIR.sizes
    ]
    return PairProduct.of(PAIR, (sides[0], sides[1]))


def test_it_is_zero_until_it_is_filled() -> None:
    assert PairProduct(PAIR, 5)(IDS).tolist() == [0.0, 0.0, 0.0]


def test_a_row_is_the_product_of_its_two_vectors_and_their_biases() -> None:
    product = filled()
    for row, value in zip(IDS.tolist(), product(IDS).tolist(), strict=True):
        left, right = product.vectors0[row[0]], product.vectors1[row[2]]
        expected = left @ right + product.bias0[row[0]] + product.bias1[row[2]]
        assert value == pytest.approx(float(expected), abs=1e-6)


def test_candidates_of_one_request_share_the_first_vector() -> None:
    same = IDS.clone()
    same[:, 0] = 1
    torch.testing.assert_close(filled()(same, torch.tensor(1)), filled()(same))


def test_shortened_vectors_keep_all_products_while_they_are_long_enough() -> None:
    torch.manual_seed(0)
    low = torch.randn(40, 6) @ torch.randn(6, 30)
    left, right = torch.randn(50, 40) @ low, torch.randn(60, 30)
    products = left @ right.T
    short = shortened(left, right, 6)
    assert [tuple(side.shape) for side in short] == [(50, 6), (60, 6)]
    torch.testing.assert_close(short[0] @ short[1].T, products, atol=1e-2, rtol=1e-4)
    worse = shortened(left, right, 3)
    singular = torch.linalg.svdvals(products.double())
    off = (worse[0] @ worse[1].T - products).norm() ** 2
    assert float(off) == pytest.approx(float((singular[3:] ** 2).sum()), rel=1e-3)


def test_tables_of_fewer_ids_than_components_are_padded() -> None:
    left, right = torch.randn(3, 8), torch.randn(20, 8)
    short = shortened(left, right, 8)
    assert [tuple(side.shape) for side in short] == [(3, 8), (20, 8)]
    torch.testing.assert_close(short[0] @ short[1].T, left @ right.T, atol=1e-5, rtol=1e-4)


def test_a_weighted_sum_of_products_is_one_product() -> None:
    torch.manual_seed(1)
    products = [
        ((torch.randn(9, n), torch.randn(9)), (torch.randn(7, n), torch.randn(7))) for n in (3, 2)
    ]
    pair = FieldPair(columns=(0, 1), sizes=(9, 7), is_context=(True, False))
    ids = torch.cartesian_prod(torch.arange(9), torch.arange(7)).int()
    parts = [PairProduct.of(pair, product)(ids) for product in products]
    (left, left_bias), (right, right_bias) = added(products, [0.7, 0.3], 6)
    assert (left.shape, right.shape) == ((9, 6), (7, 6))  # one more than needed
    both = PairProduct.of(pair, ((left, left_bias), (right, right_bias)))
    torch.testing.assert_close(both(ids), 0.7 * parts[0] + 0.3 * parts[1], atol=1e-5, rtol=1e-4)
