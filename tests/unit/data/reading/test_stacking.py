from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest

from dynens.data.reading.stacking import common_type, stack
from dynens.errors import DataError

BIG = 1_234_567_890_123_456_789


def stacked(*arrays):
    return stack([pa.table({"a": array}) for array in arrays], "files")["a"].to_pylist()


def test_long_ids_beside_floats_and_texts_keep_their_digits():
    ids, floats = pa.array([BIG, BIG + 1]), pa.array([5.0, 6.5, None])
    expected = [str(BIG), str(BIG + 1), "5", "6.5", None]
    assert stacked(ids, floats) == expected
    assert stacked(ids, floats, pa.array([7]), pa.array(["x"]), pa.nulls(1)) == [
        *expected,
        "7",
        "x",
        None,
    ]
    assert stacked(pa.array([-1]), pa.array([2**64 - 1], pa.uint64())) == ["-1", str(2**64 - 1)]


def test_types_that_one_type_holds_stay_numbers():
    assert stacked(pa.array([1], pa.int8()), pa.array([BIG]), pa.nulls(1)) == [1, BIG, None]


def test_decimals_of_several_sizes_are_the_numbers_they_spell():
    few, more = pa.array([Decimal("5.50"), None]), pa.array([Decimal("12345678901234567890.125")])
    assert stacked(few, more, pa.array([7.25])) == ["5.5", None, "12345678901234567890.125", "7.25"]


START = datetime(2024, 1, 1, 9, 30)


def test_times_of_one_zone_are_times_and_others_texts_as_their_clocks_show_them():
    naive = pa.array([START, None])
    berlin = pa.array([START], pa.timestamp("ns", "Europe/Berlin"))
    assert stacked(naive.cast(pa.timestamp("ns")), pa.array([START.date()]), naive) == [
        *(START, None, datetime(2024, 1, 1)),
        *(START, None),
    ]
    assert common_type({berlin.type, pa.timestamp("ms", "Europe/Berlin")}) == pa.timestamp(
        "us", "Europe/Berlin"
    )
    first, shown = "2024-01-01 09:30:00", "2024-01-01 10:30:00+01:00"
    assert stacked(naive, berlin) == [first, None, shown]
    assert stacked(pa.array(["1 May 2024"]), naive, pa.nulls(1)) == [
        *("1 May 2024", first),
        *(None, None),
    ]


def test_durations_and_times_of_the_day_of_any_unit_are_alike():
    second = pa.array([timedelta(seconds=1)])
    assert stacked(second.cast(pa.duration("ms")), second) == [timedelta(seconds=1)] * 2
    clock = pa.array([START.time()])
    assert stacked(clock.cast(pa.time32("s")), clock) == [START.time()] * 2


LISTS = pa.list_(pa.int64())


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((LISTS, pa.large_list(pa.int32())), LISTS),
        ((pa.list_(pa.null()), LISTS), LISTS),
        ((LISTS, pa.list_(pa.large_string())), pa.list_(pa.string())),
        ((pa.list_(pa.dictionary(pa.int32(), pa.string())), LISTS), pa.list_(pa.string())),
        ((pa.list_(pa.float32(), 2), pa.list_(pa.float64())), pa.list_(pa.float64())),
        ((LISTS, pa.list_(pa.float32())), pa.list_(pa.float64())),
        ((pa.list_(LISTS), pa.large_list(pa.list_(pa.string()))), pa.list_(pa.list_(pa.string()))),
        ((LISTS, pa.string()), None),
        ((LISTS, pa.list_(pa.timestamp("us"))), None),
    ],
)
def test_lists_have_a_type_in_common_where_what_they_hold_has(kinds, expected):
    assert common_type(kinds) == common_type(kinds[::-1]) == expected


def test_lists_of_any_type_are_the_lists():
    lists = [[1, 2], None, [], [3, None]]
    words = [["1", "2"], None, [], ["3", None]]
    fixed = pa.array([[1.5, 2.5], None], pa.list_(pa.float32(), 2))
    nothing = pa.array([[]], pa.list_(pa.null()))
    assert stacked(nothing, pa.array(lists), pa.array(lists, pa.large_list(pa.int64()))) == [
        [],
        *lists,
        *lists,
    ]
    assert stacked(pa.array(lists), pa.array([["a"]])) == [*words, ["a"]]
    assert stacked(fixed, pa.array([[0.25]])) == [[1.5, 2.5], None, [0.25]]
    assert stacked(fixed.slice(0, 1), pa.array(lists)) == [[1.5, 2.5], *lists]


def test_whatever_stands_beside_texts_is_texts():
    texts = pa.array(["0:00:02", None])
    assert stacked(texts, pa.array([timedelta(seconds=1)])) == ["0:00:02", None, "1"]
    assert stacked(texts, pa.array([START.time()])) == ["0:00:02", None, "09:30:00"]
    uuids = pa.array([UUID(int=5).bytes], pa.uuid())
    assert stacked(uuids, texts) == [str(UUID(int=5)), "0:00:02", None]
    assert stacked(texts, pa.array([b"a", b"\xff"])) == ["0:00:02", None, "a", "ff"]


@pytest.mark.parametrize("number", [pa.int64(), pa.float64()])
def test_times_and_numbers_have_no_type_in_common(number):
    for kind in (pa.timestamp("us"), pa.duration("us"), pa.time64("us")):
        assert common_type({kind, number}) is None
    assert common_type({pa.timestamp("us"), pa.time64("us")}) is None


def test_types_that_have_nothing_in_common_are_refused():
    with pytest.raises(DataError, match="the files of files do not fit together"):
        stacked(pa.array([1]), pa.array([[1]]))


def test_categories_beside_texts_and_other_categories_are_their_values():
    words, more = pa.array(["a", "b"]).dictionary_encode(), pa.array(["c"])
    small = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), ["d"])
    assert stacked(words, more.cast(pa.large_string()), small) == ["a", "b", "c", "d"]
    assert stacked(pa.array([1.0, 2.5]), pa.array(["x"], pa.large_string())) == ["1", "2.5", "x"]
    assert stacked(pa.array([7, None]).dictionary_encode(), pa.array(["x"])) == ["7", None, "x"]
