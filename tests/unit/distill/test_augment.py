"""Made-up rows: what may change, what must change together, and what they are made of."""

import numpy as np
import pytest

from dynens.batch import EncodedBatch, FeatureLayout, IntArray, SparseField
from dynens.config.distill import AugmentationConfig
from dynens.distill.augment import AUGMENTATIONS, RowSpace, make_rows, row_space, units_of
from dynens.schema import FieldSpec
from tests.unit.distill.rows import units

LAYOUT = FeatureLayout(
    ("age", "age#missing", "price"),
    (SparseField("user", 50), SparseField("tags", 9, width=3), SparseField("item", 40)),
)
MISSING = EncodedBatch(np.array([[0, 1, 0.5]], np.float32), np.array([[1, 1, -1, -1, 1]], np.int32))
ENTITIES = {"age": "user", "user": "user", "tags": "item", "item": "item", "price": "item"}


def space() -> RowSpace:
    counts = np.zeros(51 + 10 + 41, np.int64)
    counts[1 + 2 : 51] = 1000
    return row_space(LAYOUT, units(LAYOUT, ENTITIES), counts, MISSING)


def table(num_rows: int = 400) -> EncodedBatch:
    """Row r carries r in every column, so that origins can be read off."""
    r = np.arange(num_rows)
    dense = np.repeat(r[:, None], 3, axis=1).astype(np.float32)
    ids = np.repeat(2 + r[:, None] % 7, 5, axis=1).astype(np.int32)
    return EncodedBatch(dense, ids)


def make(kind: str, probability: float = 0.5, rows: int = 1000) -> EncodedBatch:
    config = AugmentationConfig(kind=kind, probability=probability)  # type: ignore[arg-type]
    generator = np.random.default_rng(0)
    return make_rows(table(), rows, [config], space(), generator, without_label=table())


def test_fields_of_one_raw_column_change_together() -> None:
    """A day is told twice, as a category and as a number; a pair of categories is of no column."""
    layout = FeatureLayout(("day.size",), tuple(SparseField(n, 9) for n in ("day", "shop", "pair")))
    fields = [
        FieldSpec(name="day", entity="user"),
        FieldSpec(name="shop"),
        FieldSpec(name="day.size", column="day", kind="numeric", entity="user"),
        FieldSpec(name="pair", crossed=("day", "shop")),
    ]
    nothing = slice(0, 0)
    columns = {
        "day": (nothing, slice(0, 1)),
        "shop": (nothing, slice(1, 2)),
        "day.size": (slice(0, 1), nothing),
        "pair": (nothing, slice(2, 3)),
    }
    found = units_of(fields, columns)
    told = [(u.name, u.dense.tolist(), u.ids.tolist(), u.entity) for u in found]
    assert told == [
        ("day", [0], [0], "user"),
        ("shop", [], [1], "context"),
        ("pair", [], [2], "context"),
    ]
    days = np.arange(2000) % 7 + 2
    rows = EncodedBatch(days[:, None].astype(np.float32), np.stack([days] * 3, 1).astype(np.int32))
    space = row_space(layout, found, np.ones(30, np.int64), rows.take(slice(0, 1)))
    for kind in ("field_swap", "entity_swap", "cutmix", "field_mask"):
        policy = AugmentationConfig(kind=kind)
        made = make_rows(rows, 500, [policy], space, np.random.default_rng(0))
        assert np.array_equal(made.dense[:, 0], made.ids[:, 0]), kind
        assert not np.array_equal(made.ids[:, 0], made.ids[:, 1]), kind


def test_the_parts_of_a_date_change_with_it() -> None:
    fields = [FieldSpec(name=n) for n in ("year", "month", "day", "shop")]
    fields.append(FieldSpec(name="on.weekday", column="on", derive="weekday"))
    columns = {spec.name: (slice(0, 0), slice(i, i + 1)) for i, spec in enumerate(fields)}
    found = units_of(fields, columns, {"on": ("year", "month", "day")})
    assert [(u.name, u.ids.tolist()) for u in found] == [("on", [0, 1, 2, 4]), ("shop", [3])]


@pytest.mark.parametrize(("rounds", "masked"), [(1, 1 / 2), (2, 3 / 4), (3, 7 / 8)])
def test_a_row_goes_through_as_many_policies_as_there_are_rounds(
    rounds: int, masked: float
) -> None:
    """Two policies by turns, one of which leaves nothing; rows without a label are left alone."""
    policies = [
        AugmentationConfig(kind="field_mask", probability=1),
        AugmentationConfig(kind="feature_noise", probability=1e-9),
        AugmentationConfig(kind="unlabelled", share=2),
    ]
    logged = EncodedBatch(np.full((400, 3), 9999.0, np.float32), np.full((400, 5), 8, np.int32))
    generator = np.random.default_rng(0)
    made = make_rows(
        table(), 8000, policies, space(), generator, without_label=logged, rounds=rounds
    )
    given = (made.dense == 9999.0).all(axis=1)
    assert given.mean() == pytest.approx(1 / 2, abs=0.02)
    changed = (made.ids == MISSING.ids).all(axis=1)
    assert changed[~given].mean() == pytest.approx(masked, abs=0.02)
    assert not changed[given].any()


def test_rows_without_a_label_come_as_they_are_and_as_often_as_there_are_many() -> None:
    policies = [AugmentationConfig(kind="unlabelled"), AugmentationConfig(kind="cutmix", share=3)]
    logged = EncodedBatch(np.full((100, 3), 9999.0, np.float32), np.full((100, 5), 8, np.int32))

    def share(without_label: EncodedBatch | None) -> float:
        generator = np.random.default_rng(0)
        made = make_rows(table(), 8000, policies, space(), generator, without_label=without_label)
        given = (made.dense == 9999.0).all(axis=1)
        assert (made.ids[given] == 8).all()
        assert (made.dense[~given] < 400).all()
        return float(given.mean())

    # A quarter as many as there are rows with a label: 0.25 : 3; as many and more: 1 : 3.
    assert share(logged) == pytest.approx(0.25 / 3.25, abs=0.01)
    many = logged.take(np.arange(800) % 100)
    assert share(many) == pytest.approx(0.25, abs=0.02)
    assert share(None) == 0.0


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_every_policy_makes_valid_rows_of_the_table_layout(kind: str) -> None:
    made = make(kind)
    assert made.dense.shape == (1000, 3)
    assert made.dense.dtype == np.float32
    assert made.ids.shape == (1000, 5)
    assert made.ids.dtype == np.int32
    assert np.isfinite(made.dense).all()
    assert made.labels is None


def test_field_swap_moves_whole_features_at_the_given_rate() -> None:
    made = make("field_swap", probability=0.25)
    assert np.array_equal(made.dense[:, 0], made.dense[:, 1])
    mixed = made.dense[:, 0] != made.dense[:, 2]
    # Both from the base or both from the donor: 0.75² + 0.25² = 0.625 (equal draws apart).
    assert mixed.mean() == pytest.approx(0.375, abs=0.05)


def test_features_that_are_made_of_others_follow_them() -> None:
    def write(ids: IntArray) -> None:
        ids[:, 4] = ids[:, 0]

    counts = np.zeros(102, np.int64)
    space = row_space(LAYOUT, units(LAYOUT, ENTITIES), counts, MISSING, write)
    config = AugmentationConfig(kind="entity_swap", probability=0.25)
    made = make_rows(table(), 1000, [config], space, np.random.default_rng(0))
    assert np.array_equal(made.ids[:, 0], made.ids[:, 4])
    assert (made.ids[:, 1] != made.ids[:, 4]).mean() > 0.8


def test_entity_swap_keeps_each_entity_whole() -> None:
    made = make("entity_swap")
    assert np.array_equal(made.dense[:, 2].astype(int) % 7 + 2, made.ids[:, 4])
    assert np.array_equal(made.ids[:, 1], made.ids[:, 4])
    assert (made.dense[:, 0] != made.dense[:, 2]).mean() > 0.95


def test_entity_swap_swaps_features_where_there_is_one_entity() -> None:
    counts = np.zeros(102, np.int64)
    lone = row_space(LAYOUT, units(LAYOUT), counts, MISSING)
    config = AugmentationConfig(kind="entity_swap", probability=0.25)
    made = make_rows(table(), 1000, [config], lone, np.random.default_rng(0))
    assert (made.dense[:, 0] != made.dense[:, 2]).mean() == pytest.approx(0.375, abs=0.05)


def test_field_mask_gives_what_encoders_write_for_missing_values() -> None:
    made = make("field_mask", probability=1.0)
    assert (made.ids == MISSING.ids).all()
    assert (made.dense == MISSING.dense).all()


def test_id_dropout_prefers_rare_ids() -> None:
    made = make("id_dropout", probability=1.0)
    assert (made.ids[:, 4] == 0).all()  # never seen in training
    assert (made.ids[:, 0] == 0).mean() == pytest.approx(1 / (1 + np.log1p(1000)), abs=0.04)


def test_shares_divide_the_rows_and_seeds_repeat_them() -> None:
    policies = [
        AugmentationConfig(kind="field_mask", probability=1.0, share=3),
        AugmentationConfig(kind="entity_swap", share=1),
    ]
    made = make_rows(table(), 4000, policies, space(), np.random.default_rng(5))
    assert (made.ids[:, 0] == 1).mean() == pytest.approx(0.75, abs=0.03)
    again = make_rows(table(), 4000, policies, space(), np.random.default_rng(5))
    assert np.array_equal(made.ids, again.ids)
