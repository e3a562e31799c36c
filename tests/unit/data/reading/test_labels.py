import numpy as np
import pyarrow as pa
import pytest

from dynens.data.reading.labels import NO_LABEL, LabelReader
from dynens.errors import DataError, SchemaError
from dynens.rules import LabelRule


def labels_of(values, **rule):
    reader = LabelReader(LabelRule(column="y", **rule))
    codes = np.concatenate([reader.read(pa.table({"y": chunk})) for chunk in values])
    labels = reader.labels_by_code()
    return [None if code < 0 else int(labels[code]) for code in codes]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 1], [0, 1, 1]),
        ([True, False], [1, 0]),
        (["yes", "no", "YES"], [1, 0, 1]),
        (["True", "False"], [1, 0]),
        ([1, 2, 2], [0, 1, 1]),
        ([-1, 1], [0, 1]),
        ([0.0, 1.0, None], [0, 1, None]),
        (["click", "no click"], [1, 0]),
        (["not_interested", "interested"], [0, 1]),
        (["churned", "non-churned", "churned"], [1, 0, 1]),
        ([">50K", "<=50K", "<=50K"], [1, 0, 0]),
        ([">50K", "<=50K", " <=50K.", ">50K. ", "<=50K"], [1, 0, 0, 1, 0]),
        (["b", "a", "b"], [0, 1, 0]),
    ],
)
def test_binary_columns(values, expected):
    assert labels_of([values]) == expected


def test_rules_and_drops():
    ratings = ["1", "3", "4", "5", None]
    assert labels_of([ratings], positive="y >= 4", drop="y == 3") == [0, None, 1, 1, None]
    assert labels_of([["buy", "view"]], positive="== buy") == [1, 0]
    assert labels_of([["Buy.", "view", "Buy"]], positive="== buy") == [1, 0, 1]
    assert labels_of([["buy", "view."]], positive="y != View.") == [1, 0]


@pytest.mark.parametrize("rule", ["drop", "unlabelled"])
def test_two_values_are_left_after_rows_have_been_set_aside(rule):
    answers = [["yes", "maybe", "no"], ["no", "maybe"]]
    assert labels_of(answers, **{rule: "y == maybe"}) == [1, None, 0, 0, None]
    reader = LabelReader(LabelRule(column="y", **{rule: "y == maybe"}))
    reader.read(pa.table({"y": answers[0]}))
    assert (reader.resolved().positive, reader.resolved().negative) == ("`y` == yes", "`y` == no")
    notes = [f"note {i}" for i in range(70_000)]
    kinds = ["other"] * len(notes) + ["answer"] * 2
    reader = LabelReader(LabelRule(column="y", **{rule: "kind == other"}))
    codes = reader.read(pa.table({"y": [*notes, "yes", "no"], "kind": kinds}))
    assert (codes[:-2] < 0).all()
    assert reader.labels_by_code()[codes[-2:]].tolist() == [1, 0]


def test_rows_set_aside_are_of_neither_class():
    says = "'y >= 4' gives one class only"
    with pytest.raises(DataError, match=says):
        labels_of([[5, 1, 4]], positive="y >= 4", drop="y < 2")
    with pytest.raises(DataError, match="one value only"):
        labels_of([["yes", "no"]], drop="y == no")


def test_rules_that_ask_whether_there_is_a_value():
    times = [["2024-05-01", None], ["NA", "2024-05-02"]]
    assert labels_of(times, positive="y != NA") == [1, 0, 0, 1]
    assert labels_of(times, positive="y == null") == [0, 1, 1, 0]
    assert labels_of([["None", "minor", ""]], positive="y != None") == [0, 1, 0]
    assert labels_of([[1.5, None]], positive="y != NA") == [1, 0]


def test_rows_without_a_value_are_named_where_one_class_is_left():
    says = "and 2 rows have no value .* give the label as 'y != NA'"
    for rule in ({}, {"positive": "y == hit"}):
        with pytest.raises(DataError, match=says):
            labels_of([["hit", None, "None"]], **rule)


def test_the_class_is_settled_over_all_chunks():
    assert labels_of([["no"], ["yes", "no"]]) == [0, 1, 0]


def test_resolved_rules_read_other_files_alike():
    reader = LabelReader(LabelRule(column="y"))
    reader.read(pa.table({"y": ["<=50K", ">50K", "<=50K"]}))
    again = LabelReader(reader.resolved())
    assert again.read(pa.table({"y": [">50K", "<=50K"]})).tolist() == [1, 0]
    assert again.read(pa.table({"y": [" <=50K.", ">50K."]})).tolist() == [0, 1]


def test_resolved_rules_of_columns_with_odd_names():
    for name in ("did `it`?", "a >= b", "x == 1"):
        reader = LabelReader(LabelRule(column=name))
        reader.read(pa.table({name: [0, 1]}))
        assert LabelReader(reader.resolved()).read(pa.table({name: [1, 0]})).tolist() == [1, 0]


def test_values_that_training_did_not_hold_are_refused():
    reader = LabelReader(LabelRule(column="y"))
    reader.read(pa.table({"y": [0, 1, 1]}))
    again = LabelReader(reader.resolved())
    codes = again.read(pa.table({"y": ["1.0", "false", None]}))
    assert codes.tolist() == [1, 0, NO_LABEL]
    for other in (["yes", "no"], ["0", "2"]):
        with pytest.raises(DataError, match=r"neither positive .* nor negative"):
            again.read(pa.table({"y": other}))


@pytest.mark.parametrize(
    ("negative", "positive"), [("'no'", "'yes'"), ("=0", "=1"), ('"n"', '"y"'), ("b'", "a'")]
)
def test_resolved_rules_keep_signs_and_quotes(negative, positive):
    reader = LabelReader(LabelRule(column="y"))
    reader.read(pa.table({"y": [negative, negative, positive]}))
    rule = LabelRule.model_validate(reader.resolved().model_dump())
    again = LabelReader(rule).read(pa.table({"y": [positive, negative]}))
    assert again.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([[1, 1]], "one value only"),
        ([[1, 2, 3]], "not binary"),
        ([[str(i) for i in range(2000)]], "not binary"),
        ([pa.array([None, None], pa.int64())], "no values"),
    ],
)
def test_labels_that_are_no_labels(values, says):
    with pytest.raises(DataError, match=says):
        labels_of(values)


def test_one_class_under_a_rule():
    with pytest.raises(DataError, match="one class only"):
        labels_of([[1, 2]], positive="y > 5")


def test_an_order_among_words_is_refused():
    with pytest.raises(SchemaError, match="orders numbers, but 'y' holds 'a'; write numbers"):
        labels_of([["7", "a", "b"]], positive="y > 5")
    with pytest.raises(SchemaError, match="orders by 'b', which is no number"):
        labels_of([["a", "b"]], positive="y > b")
    with pytest.raises(SchemaError, match="'y' holds ranges"):
        labels_of([["1-3", "4-6", "7"]], positive="y > 5")


def test_decimal_commas_among_points_are_numbers():
    stars = ["4,5", "4.5", "3,5", "4", None, "3.5"]
    assert labels_of([stars], positive="y >= 4") == [1, 1, 0, 1, None, 0]
    assert labels_of([["4,5 stars", "1 star", "5 stars"]], positive="y >= 4") == [1, 0, 1]
    with pytest.raises(SchemaError, match="holds '4,5'"):
        labels_of([["4,5", "1,250"]], positive="y >= 4")  # a thousand, or one and a quarter?


def test_no_label_column():
    for names, says in (
        (["a", "b"], "no label column 'y'; its columns are a, b; name one of them"),
        (["a", "Y"], "did you mean 'Y'"),
        (["39", "DE", "x"], "are 39, DE, x; name one of them, or, if it has no header, name its"),
        ([f"c{i}" for i in range(15)], "c10, c11 and 3 more; name one of them"),
        (["a y b"], "its one column is 'a y b'; separate values by commas"),
    ):
        with pytest.raises(DataError, match=says):
            LabelReader(LabelRule(column="y")).read(pa.table({name: [1] for name in names}))


def test_a_rule_that_is_none_is_called_so():
    for rule in ("y => 4", "y >= "):
        with pytest.raises(DataError, match=f"no label column '{rule}'; nor is that a rule"):
            LabelReader(LabelRule(column=rule)).read(pa.table({"y": [1, 5]}))


def test_the_rule_proposed_fits_the_values():
    with pytest.raises(DataError, match=r"--label 'y >= 0\.5'"):
        labels_of([[0, 1, 0.5]])
    with pytest.raises(DataError, match="--label 'y == yes'"):
        labels_of([["yes", "no", "maybe"]])
    with pytest.raises(DataError, match="--label 'y == cart'"):
        labels_of([["view"] * 9 + ["cart"] * 3 + ["remove"]])


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ([0] * 9 + [*range(1, 22)] * 2, 1),  # a count, mostly zero
        ([1] + [2] * 2 + [3] * 5 + [4] * 9 + [5] * 2, 4),  # ratings
        ([i / 8 for i in range(4000)], 250),  # more values than are looked at
    ],
)
def test_the_rule_proposed_for_numbers_divides_the_rows(values, limit):
    with pytest.raises(DataError, match=f"--label 'y >= {limit}'"):
        labels_of([values])


def test_no_rule_is_proposed_for_many_texts():
    with pytest.raises(DataError, match="name a column that says yes or no"):
        labels_of([[f"2024-03-{day:02}" for day in range(1, 31)]])


def test_a_header_among_the_rows_is_named():
    with pytest.raises(DataError, match="one is its own name, so remove the header among the rows"):
        labels_of([["0", "1", "Y", "0"]])


def test_labels_with_a_structure_are_refused():
    for value in ([1], {"v": 1}):
        with pytest.raises(DataError, match="label column 'y' holds lists or structs"):
            labels_of([[value, value]])
