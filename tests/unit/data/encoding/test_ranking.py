"""Ranking requests to rows: written out, and by their place in the item table."""

import gc
import weakref

import numpy as np
import pyarrow as pa
import pytest

from dynens.data.encoding.encoders import RowEncoder
from dynens.data.encoding.entities import RawEntity
from dynens.errors import DataError
from dynens.schema import FieldSpec
from tests.unit.data.encoded import KEEP_ALL, fit, same


def test_rank_equals_the_same_rows_as_a_table(joined):
    encoder, _, _ = joined
    for user in (1, "2", 99, None):
        candidates = [12, "10", 11.0, 13, "unknown"]
        table = pa.table(
            {
                "user_id": [None if user is None else str(user)] * 5,
                "item": ["12", "10", "11", "13", "unknown"],
                "slot": ["b"] * 5,
            }
        )
        same(encoder.encode_rank(user, {"slot": "b"}, candidates), encoder.encode_table(table))


@pytest.mark.parametrize("user", [1, "2", 99, None])
def test_candidates_are_the_same_rows_by_their_place(joined, user):
    encoder, _, _ = joined
    context = {"slot": "b", "age": 30.0}
    for keys in ([12, "10", 11, 11.0], [10], []):
        candidates = encoder.candidates(user, context, keys)
        same(candidates.encoded(), encoder.encode_rank(user, context, keys))
        same(candidates.take(slice(1, 3)).encoded(), candidates.encoded().take(slice(1, 3)))
    assert len(encoder.item_table()) == 3
    assert encoder.candidates(user, context, [10, 13]) is None  # not in the table
    assert encoder.candidates(user, context, [" 10"]) is None  # written otherwise


def test_context_that_sets_a_field_of_the_item_goes_the_long_way(joined):
    encoder, _, _ = joined
    assert encoder.candidates(1, {"slot": "a", "price": 3.0}, [10]) is None
    assert encoder.candidates(1, {"slot": "a", "unheard_of": 3.0}, [10]) is not None


def test_candidates_need_item_columns_that_stand_apart(joined, encoder):
    assert encoder.candidates(1, {}, [1]) is None
    _, table, entities = joined
    item = FieldSpec(name="item", entity="item", vocabulary=KEEP_ALL)
    user = FieldSpec(name="user_id", entity="user", vocabulary=KEEP_ALL)
    specs = {
        "key read as a number": [user, item, FieldSpec(name="n", column="item", kind="numeric")],
        "item column called context": [user, item, FieldSpec(name="price", kind="numeric")],
        "user column called the item's": [
            user,
            item,
            FieldSpec(name="age", kind="numeric", entity="item"),
        ],
        "user's key called the item's": [
            FieldSpec(name="slot", vocabulary=KEEP_ALL),
            item,
            FieldSpec(name="user_id", entity="item", vocabulary=KEEP_ALL),
        ],
        "nothing but items": [item],
    }
    for name, fields in specs.items():
        made = fit(fields, table, entities, user_key="user_id", item_key="item")
        assert made.item_table() is None, name
        assert made.candidates(1, {}, [10]) is None, name
        assert len(made.encode_rank(1, {}, [10])) == 1, name


def test_an_encoder_goes_without_the_garbage_collector(tmp_path, joined):
    """Servers freeze what they have loaded, and a frozen cycle is never collected."""
    joined[0].save(tmp_path)
    encoder = RowEncoder.load(tmp_path)
    encoder.encode_rank(1, {}, [10])
    gone = weakref.ref(encoder)
    gc.disable()
    try:
        del encoder
        assert gone() is None
    finally:
        gc.enable()


def test_context_wins_over_the_user_table(joined):
    encoder, _, _ = joined
    row = encoder.encode_rank(1, {"age": 30.0, "slot": "a"}, [10])
    other = encoder.encode_rank(2, {"slot": "a"}, [10])
    np.testing.assert_array_equal(row.dense, other.dense)


def test_rank_without_candidates_and_without_items(joined, encoder):
    assert len(joined[0].encode_rank(1, {}, [])) == 0
    with pytest.raises(DataError, match="no item table"):
        encoder.encode_rank(1, {}, [1])


def test_what_tables_know_is_told_by_their_columns_whosever_fields_these_are():
    users = pa.table({"user_id": ["1", "2"], "town": ["a", "b"]})
    items = pa.table({"item": [10, 11], "price": [1.0, 2.0]})
    entities = [RawEntity("user", "user_id", users), RawEntity("item", "item", items)]
    table = pa.table(
        {"user_id": [1, 2], "item": [10, 11], "user_mood": ["x", "y"], "item_place": ["t", "u"]}
    )
    specs = [
        FieldSpec(name="user_id", entity="user"),
        FieldSpec(name="town"),  # of the context, by default
        FieldSpec(name="user_mood", entity="user"),
        FieldSpec(name="item_place", entity="item"),
        FieldSpec(name="price", kind="numeric", entity="item"),
    ]
    encoder = fit(specs, table, entities, user_key="user_id", item_key="item")
    assert encoder.joined_fields == {"user_id", "item", "town", "price"}
