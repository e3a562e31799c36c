from __future__ import annotations

import torch

from dynens.batch import FeatureLayout, SparseField
from dynens.layers.matches import SharedValues, match, matches, share, shares
from dynens.models.selection import select_features
from tests.unit.layers.pairs import pairs_of

# A history of three values, the candidate's two tags and the candidate.
LAYOUT = FeatureLayout(
    (),
    (
        SparseField("history", 9, 3, "item"),
        SparseField("last", 9, 1, "item"),
        SparseField("tags", 9, 2, "item"),
        SparseField("item", 9),
    ),
    context_fields=2,
    shares=("history",),
)
HISTORY = torch.tensor([[4, 5, 4], [6, -1, -1], [1, -1, -1], [0, 0, 2]], dtype=torch.int32)
ITEM = torch.tensor([[4], [5], [1], [0]], dtype=torch.int32)


def test_matches_by_hand() -> None:
    # Twice, never, both missing, both unknown: n / (n + 1).
    expected = torch.tensor([[2 / 3], [0.0], [0.0], [0.0]])
    torch.testing.assert_close(match(HISTORY, ITEM), expected)
    assert match(ITEM, HISTORY).tolist() == match(HISTORY, ITEM).tolist()
    # Padding meets nothing, and lists meet in pairs: 4-4, 5-5, 4-4.
    tags = torch.tensor([[4, 5], [-1, -1], [1, -1], [3, -1]], dtype=torch.int32)
    assert match(HISTORY, tags).tolist() == [[0.75], [0.0], [0.0], [0.0]]


def test_shares_are_of_the_values_that_a_list_has() -> None:
    # Two of three, none of one, a list without values, and of two unknown values and one: none.
    assert share(HISTORY, ITEM).tolist() == [[torch.tensor(2 / 3).item()], [0.0], [0.0], [0.0]]
    assert share(HISTORY[:1], torch.tensor([[5], [9]], dtype=torch.int32)).tolist() == [
        [torch.tensor(1 / 3).item()],
        [0.0],
    ]


def test_one_context_stands_for_all_rows() -> None:
    once = match(HISTORY[:1], torch.tensor([[4], [5], [6]], dtype=torch.int32))
    torch.testing.assert_close(once, torch.tensor([[2 / 3], [0.5], [0.0]]))


def test_pairs_of_a_layout() -> None:
    history, last, tags, item = slice(0, 3), slice(3, 4), slice(4, 6), slice(6, 7)
    pairs = pairs_of(select_features(LAYOUT, None), matches)
    assert pairs == (
        SharedValues(history, item, taker_is_context=True),
        SharedValues(last, item, taker_is_context=True),
        SharedValues(tags, item),
    )
    ids = torch.tensor([[4, 5, 4, 4, 2, 3, 4]], dtype=torch.int32)
    torch.testing.assert_close(matches(ids, ids, pairs), torch.tensor([[2 / 3, 0.5, 0.0]]))
    assert pairs_of(select_features(LAYOUT, ("history", "last", "tags")), matches) == ()
    assert pairs_of(select_features(LAYOUT, None), shares) == pairs[:1]


def test_pairs_within_the_context_come_first() -> None:
    fields = (
        SparseField("last", 9, 1, "item"),
        SparseField("shop_city", 9, 1, "home_city"),
        SparseField("home_city", 9),
        SparseField("item", 9),
    )
    pairs = pairs_of(select_features(FeatureLayout((), fields, 0, 3), None), matches)
    assert [(p.taker.start, p.is_context) for p in pairs] == [(1, True), (0, False)]


def test_a_list_that_is_chosen_comes_with_its_length() -> None:
    layout = FeatureLayout(("price", "tags#length"), (SparseField("tags", 9, 2),))
    assert select_features(layout, ("tags",)).dense_columns == (1,)


def test_layouts_keep_who_shares_with_whom() -> None:
    assert FeatureLayout.from_dict(LAYOUT.to_dict()) == LAYOUT
