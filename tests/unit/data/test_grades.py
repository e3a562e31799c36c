"""Grades: what an outcome tells beyond its label."""

import numpy as np
import pyarrow as pa
import pytest

from dynens.data.grades import grades_of, outcomes_in
from dynens.data.prepare import prepare
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec
from tests.unit.data.tables import mixed_table, written


def test_grades_are_ranks_on_either_side() -> None:
    outcomes = np.array([1, 1, 2, 2, 4, 4, 4, 5], np.float64)
    labels = (outcomes >= 4).astype(np.float32)
    grades = grades_of(outcomes, labels, np.ones(8, bool), np.zeros(8, bool))
    assert grades is not None
    np.testing.assert_allclose(grades, [-1.5, -1.5, -0.5, -0.5, 0.75, 0.75, 0.75, 1.75])
    assert np.abs(grades[labels > 0]).mean() == pytest.approx(1)
    assert np.abs(grades[labels == 0]).mean() == pytest.approx(1)


def test_rows_that_do_not_train_have_no_part_in_it() -> None:
    outcomes = np.array([0, 1, 9, 2, 100], np.float64)
    labels = (outcomes >= 1).astype(np.float32)
    train = np.array([True, True, False, True, False])
    grades = grades_of(outcomes, labels, train, np.zeros(5, bool))
    assert grades is not None
    np.testing.assert_allclose(grades, [-1, 0.5, 0, 1.5, 0])


def test_one_outcome_a_class_is_the_label_itself() -> None:
    outcomes = np.array([0, 1, 1, 0, 7], np.float64)
    labels = (outcomes > 0).astype(np.float32)
    train = np.array([True, True, True, True, False])
    assert grades_of(outcomes, labels, train, np.zeros(5, bool)) is None


def test_rows_without_a_label_are_in_the_middle_only_where_their_outcome_is() -> None:
    outcomes = np.array([1, 2, 4, 5, 3, 2, 6, 0, np.nan], np.float64)
    labels = np.array([0, 0, 1, 1, *[np.nan] * 5], np.float32)
    train = np.arange(9) < 4
    grades = grades_of(outcomes, labels, train, ~train)
    assert grades is not None
    np.testing.assert_allclose(grades[:4], [-1.5, -0.5, 0.5, 1.5])
    np.testing.assert_allclose(grades[4:], [0, np.nan, np.nan, np.nan, np.nan])


def test_a_row_between_two_outcomes_is_graded_and_so_are_these() -> None:
    outcomes, labels = np.array([-1, 1, 0], np.float64), np.array([0, 1, np.nan], np.float32)
    train = np.array([True, True, False])
    grades = grades_of(outcomes, labels, train, ~train)
    assert grades is not None
    assert grades.tolist() == [-1, 1, 0]


@pytest.mark.parametrize(
    ("positive", "expected"),
    [
        ("stars >= 3", [1, 5]),
        ("stars > 3", [1, 5]),
        ("stars < 3", [-1, -5]),
        ("stars <= 3", [-1, -5]),
        ("stars == 3", None),
        ("word == yes", None),
        (None, None),
    ],
)
def test_only_a_threshold_grades(positive: str | None, expected: list[float] | None) -> None:
    table = pa.table({"stars": ["1", "5"], "word": ["yes", "no"]})
    outcomes = outcomes_in(table, LabelRule(column="stars", positive=positive))
    assert (None if outcomes is None else outcomes.tolist()) == expected


def test_training_rows_keep_their_grades_and_others_have_none(tmp_path) -> None:
    stars = np.arange(600) % 5 + 1.0
    table = mixed_table(600).append_column("stars", pa.array(stars))
    table = table.append_column("position", pa.array(np.arange(600.0)))
    features = FeatureSchema(
        label=LabelRule(column="stars", positive="stars >= 4", drop="stars == 3"),
        fields=(FieldSpec(name="position", kind="numeric"),),
    )
    config = DatasetConfig(files=(str(written(tmp_path, table)),), features=features)
    data = prepare(config, tmp_path / "out", seed=0)
    train = data.split("train")
    assert train.grades is not None
    assert ((train.grades > 0) == (train.labels > 0)).all()
    assert len(np.unique(train.grades)) == 4
    assert data.split("valid").grades is None
    assert data.split("test").grades is None
    nearer = np.abs(train.grades) < 1
    assert nearer.mean() == pytest.approx(0.5, abs=0.1)


def test_a_yes_or_no_has_no_grades(tmp_path) -> None:
    features = FeatureSchema(label=LabelRule(column="click"), fields=(FieldSpec(name="country"),))
    config = DatasetConfig(files=(str(written(tmp_path, mixed_table(600))),), features=features)
    assert prepare(config, tmp_path / "out", seed=0).split("train").grades is None


def test_decimal_commas_and_units_grade_alike(tmp_path) -> None:
    stars = np.arange(600) % 5 + 0.5
    spelled = [f"{s}".replace(".", ".,"[i // 5 % 2]) for i, s in enumerate(stars)]
    grades = []
    for name, written_as in (("plain", pa.array(stars)), ("spelled", pa.array(spelled))):
        table = mixed_table(600).append_column("stars", written_as)
        table = table.append_column("position", pa.array(np.arange(600.0)))
        features = FeatureSchema(
            label=LabelRule(column="stars", positive="stars >= 4"),
            fields=(FieldSpec(name="position", kind="numeric"),),
        )
        (tmp_path / name).mkdir()
        config = DatasetConfig(files=(str(written(tmp_path / name, table)),), features=features)
        grades.append(prepare(config, tmp_path / name / "out", seed=0).split("train").grades)
    np.testing.assert_array_equal(*grades)
