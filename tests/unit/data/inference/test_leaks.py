import numpy as np
import pyarrow as pa
import pytest

from dynens.data.inference.leaks import find_leak, named_after_leaks
from dynens.data.inference.profile import profile_column

RNG = np.random.default_rng(0)
LABELS = (np.arange(1000) < 250).astype(np.float32)
SOME, MANY = np.arange(1000) < 60, np.arange(1000) < 120  # of the 250 positive rows


@pytest.mark.parametrize(
    ("column", "certain"),
    [
        (np.where(LABELS > 0, "A", "B"), True),
        ([5 if y else None for y in LABELS], True),
        (np.where(LABELS > 0, RNG.lognormal(0, 1, 1000), 999), True),  # days until, or never
        (np.where(SOME, RNG.lognormal(3, 1, 1000), 0.0), False),
        (np.where(SOME, np.arange(1000), -1), False),
        ([f"r{i}" if some else None for i, some in enumerate(SOME)], False),
        (np.where(SOME, "called back", "none yet"), False),
        (np.where(MANY, "called back", "none yet"), True),
        (np.where(MANY, RNG.lognormal(3, 1, 1000), np.nan), True),  # the value of an order
        (np.where(MANY | (np.arange(1000) == 500), 1, 0), False),  # but for one row
        (np.where(LABELS > 0, 0, np.arange(1000) % 2), False),  # 1 in none of the positive rows
        (np.where(LABELS > 0, "a", np.where(np.arange(1000) % 9, "b", None)), True),
        ([None if y == 0 and i % 2 else i % 7 for i, y in enumerate(LABELS)], False),
        ([f"R{10_000 + i}" for i in range(1000)], False),  # sorted by the label
        ([f"R{10_000 + i}" for i in RNG.permutation(1000)], None),
        (np.where(np.arange(1000) > 974, "refused", "-"), None),  # .75 ** 25 is likely enough
        (np.where(np.arange(1000) < 19, "rare", "-"), None),
        (RNG.permutation(np.where(SOME, RNG.lognormal(3, 1, 1000), 0.0)), None),
        (RNG.integers(0, 300, 1000), None),
    ],
)
def test_what_is_known_afterwards_is_left_out_or_warned_of(column, certain):
    leak = find_leak(profile_column("c", pa.chunked_array([pa.array(column)]), LABELS))
    assert (leak.certain if leak else None) is certain


def test_a_warning_says_where_the_label_is_told():
    refund = pa.chunked_array([pa.array(np.where(SOME, 9.5, 0.0))])
    leak = find_leak(profile_column("refund", refund, LABELS))
    assert leak is not None
    assert "refund nearly tells the label wherever it has not its usual value" in leak.why
    # Its name speaks of it too: beyond doubt.
    for name in ("revenue", "added_to_cart", "addToCart"):
        assert find_leak(profile_column(name, refund, LABELS)).certain


def test_what_comes_before_the_label_in_a_funnel_is_warned_of_or_left_out():
    opened = np.where((LABELS > 0) | (np.arange(1000) % 5 == 0), "yes", "no")
    opened = pa.chunked_array([pa.array(opened)])
    leak = find_leak(profile_column("seen", opened, LABELS))
    assert leak is not None
    assert "of rows with 'no' (60% of all) in seen none is positive; leave it out if" in leak.why
    assert find_leak(profile_column("opened", opened, LABELS)).certain  # its name tells, too


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (["x", None], "every row in which it has a value is positive"),
        ([3, 0], "every row in which it has not its usual value is positive"),
    ],
)
def test_what_only_positive_rows_have_is_left_out(values, why):
    column = pa.chunked_array([pa.array([values[0] if many else values[1] for many in MANY])])
    assert find_leak(profile_column("c", column, LABELS)).why == why


def test_what_has_the_name_of_the_label_is_warned_of():
    used = ["response_latency_s", "responseTime", "responses", "latency"]
    warnings = named_after_leaks({}, used, "response")
    assert [text.split()[0] for text in warnings] == ["response_latency_s", "responseTime"]
    assert "has the name of response, which is the label; leave it out if" in warnings[0]


def test_what_has_the_name_of_a_leak_is_warned_of():
    columns = {"status": LABELS, "x": RNG.normal(size=1000), "y": RNG.integers(0, 9, 1000)}
    profiles = {n: profile_column(n, pa.chunked_array([c]), LABELS) for n, c in columns.items()}
    used = ["status_date", "statusDate", "status_date", "statuses", "x_date", "last_status"]
    warnings = named_after_leaks(profiles, used, "y")
    assert [text.split()[0] for text in warnings] == ["status_date", "statusDate"]
    assert "has the name of status, which gives the label away; leave it out if" in warnings[0]


def test_what_stands_beside_the_label_is_warned_of():
    used = ["user.id", "outcome.seconds", "outcome.seconds", "outcomes", "outcome.at"]
    (warning,) = named_after_leaks({}, used, "outcome.clicked")
    assert warning.startswith("outcome.seconds, outcome.at: beside the label in outcome; leave out")
    assert not named_after_leaks({}, used, "clicked")
