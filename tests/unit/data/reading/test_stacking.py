from datetime import datetime, timedelta
from decimal import Decimal

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
