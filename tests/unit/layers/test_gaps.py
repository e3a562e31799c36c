from __future__ import annotations

from dataclasses import replace

import torch

from dynens.batch import DenseGap, FeatureLayout, SparseField
from dynens.layers.gaps import ApartColumns, gaps
from dynens.models.selection import select_features
from tests.unit.layers.pairs import pairs_of

LAYOUT = FeatureLayout(
    ("home", "price", "shop", "cost"),
    (SparseField("user", 9), SparseField("item", 9)),
    context_dense=2,
    context_fields=1,
    gaps=(
        DenseGap("cost", "shop", 0.0, 1.0),
        DenseGap("shop", "home", 0.5, 4.0),
        DenseGap("price", "home", 0.0, 2.0),
    ),
)


def test_gaps_by_hand() -> None:
    dense = torch.tensor([[1.0, 1.5, 1.75, 1.75], [0.0, 0.0, 0.0, 3.0]])
    pairs = pairs_of(select_features(LAYOUT, None), gaps)
    # price - home, the context's: 0.5 · 2 = 1 → 1/2; shop - home - 0.5: 0.25 · 4 and -0.5 · 4.
    expected = torch.tensor([[0.5, 0.5, 0.0], [0.0, -2 / 3, 0.75]])
    torch.testing.assert_close(gaps(dense, dense, pairs), expected)


def test_pairs_of_a_layout() -> None:
    pairs = pairs_of(select_features(LAYOUT, None), gaps)
    assert pairs == (
        ApartColumns(1, 0, 0.0, 2.0, taker_is_context=True, owner_is_context=True),
        ApartColumns(2, 0, 0.5, 4.0, owner_is_context=True),
        ApartColumns(3, 2, 0.0, 1.0),
    )
    assert [pair.is_context for pair in pairs] == [True, False, False]
    assert pairs_of(select_features(LAYOUT, ("price", "cost", "item")), gaps) == ()


def test_what_is_only_apart_is_no_feature_by_itself() -> None:
    layout = replace(LAYOUT, only_apart=("home", "shop"))
    selected = select_features(layout, None)
    assert selected.dense_columns == (1, 3)
    assert selected.context_dense == 1
    assert pairs_of(selected, gaps) == pairs_of(select_features(LAYOUT, None), gaps)
    assert FeatureLayout.from_dict(layout.to_dict()) == layout


def test_one_context_stands_for_all_rows() -> None:
    dense = torch.tensor([[1.0, 1.5, 1.75, 1.75], [1.0, 1.5, 0.0, 3.0]])
    pairs = pairs_of(select_features(LAYOUT, None), gaps)
    torch.testing.assert_close(gaps(dense, dense[:1], pairs[1:]), gaps(dense, dense, pairs[1:]))


def test_layouts_keep_what_is_apart() -> None:
    assert FeatureLayout.from_dict(LAYOUT.to_dict()) == LAYOUT
    assert "gaps" not in FeatureLayout(("a",), ()).to_dict()
