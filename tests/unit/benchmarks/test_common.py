"""Tables of results."""

from benchmarks.common import grouped, markdown_table, mean_and_spread


def test_a_table() -> None:
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_groups_come_in_the_order_in_which_they_are_met() -> None:
    results = [{"d": "z", "s": 1}, {"d": "a"}, {"d": "z", "s": 2}]
    one, two, three = results
    assert list(grouped(results, "d").items()) == [("z", [one, three]), ("a", [two])]
    assert grouped(results, "d", "s") == {("z", 1): [one], ("a", None): [two], ("z", 2): [three]}


def test_one_seed_has_no_spread() -> None:
    assert mean_and_spread([]) == "–"
    assert mean_and_spread([0.5]) == "0.5000"
    assert mean_and_spread([0.5, 0.7]) == "0.6000 ± 0.1414"
