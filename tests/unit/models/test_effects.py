"""What further fields add to a factorisation: draws, the module that is served, and the learner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dynens.batch import FIRST_VALUE_ID, EncodedBatch, FeatureLayout, SparseField
from dynens.config.learner import GibbsConfig, LearnerConfig
from dynens.layers.effects import FieldColumn, FieldEffects
from dynens.metrics import auc
from dynens.models import effects
from dynens.models.base import FitOptions
from dynens.models.bmf import BMFLearner
from dynens.models.effects import Effects, most_telling, other_fields
from tests.unit.killed import KilledError, kill_after
from tests.unit.models.tables import TinyStats

NO_STATS = TinyStats(np.zeros((0, 2), np.float32), (), ())
USERS, ITEMS, SLOTS = 60, 40, 5
LAYOUT = FeatureLayout(
    (),
    (
        SparseField("user", USERS + FIRST_VALUE_ID),
        SparseField("slot", SLOTS + FIRST_VALUE_ID),
        SparseField("seen", 50, width=3),
        SparseField("item", ITEMS + FIRST_VALUE_ID),
        SparseField("kind", 4 + FIRST_VALUE_ID),
    ),
    context_fields=3,
    keys=("user", "item"),
)
PAIR = LAYOUT.largest_pair()
assert PAIR is not None
SLOT, KIND = FieldColumn(1, SLOTS + FIRST_VALUE_ID, True), FieldColumn(6, 4 + FIRST_VALUE_ID, False)


def shown_table(rows: int, seed: int) -> EncodedBatch:
    """Clicks that depend on the slot far more than on user and item."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, USERS, rows), rng.integers(0, ITEMS, rows)
    slots = rng.integers(0, SLOTS, rows)
    logit = 1.5 - 1.0 * slots + 0.5 * (users % 3 == items % 3)
    clicks = rng.random(rows) < 1 / (1 + np.exp(-logit))
    columns = [users, slots, *rng.integers(0, 40, (3, rows)), items, items % 4]
    ids = np.stack(columns, axis=1).astype(np.int32) + FIRST_VALUE_ID
    return EncodedBatch(np.zeros((rows, 0), np.float32), ids, clicks.astype(np.float32))


TRAIN, VALID = shown_table(3000, 1), shown_table(2000, 2)


def learner_of(**updates: object) -> BMFLearner:
    settings = GibbsConfig(sweeps=50, burn_in=20, side_dim=0)
    config = LearnerConfig(model="bmf", embedding_dim=4, gibbs=settings)
    return BMFLearner(config.model_copy(update=updates), LAYOUT, NO_STATS, 1)


def test_fields_of_one_value_beside_the_pair_are_heard() -> None:
    assert other_fields(LAYOUT, PAIR, None) == [SLOT, KIND]
    assert other_fields(LAYOUT, PAIR, ("user", "kind", "item")) == [KIND]


def test_the_most_telling_fields_stay_where_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    value = np.asarray(TRAIN.labels, np.float64)
    value, weight = (value - value.mean()) / value.std(), np.ones(len(TRAIN))

    def ids_of(column: int) -> np.ndarray:
        return np.asarray(TRAIN.ids[:, column], np.int64)

    assert most_telling([KIND, SLOT], ids_of, value, weight) == (KIND, SLOT)
    monkeypatch.setattr(effects, "_MOST_VALUES", len(TRAIN))
    assert most_telling([KIND, SLOT], ids_of, value, weight) == (SLOT,)


def test_draws_are_those_of_a_linear_regression() -> None:
    """With the precision of the prior held, two fields' weights are normal around the ridge's."""
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 3, 80), rng.integers(0, 4, 80)
    value, weight, noise = rng.standard_normal(80), rng.uniform(0.5, 2, 80), 1.3
    fields = (FieldColumn(0, 3, True), FieldColumn(1, 5, True))  # the fifth value has no rows
    drawn = Effects(fields, [first.astype(np.int32), second.astype(np.int32)], weight)
    added, count = np.zeros(80), 4000
    for _ in range(count):
        drawn._precision = [2.0, 0.7]
        drawn.draw(value, noise, rng, keep=True)
        added += drawn.of_rows()
    inputs = np.concatenate([np.eye(3)[first], np.eye(4)[second]], axis=1)
    precision = np.diag([2.0] * 3 + [0.7] * 4) + noise * (inputs.T * weight) @ inputs
    expected = np.linalg.solve(precision, noise * inputs.T @ (weight * value))
    means = drawn.means(count, scale=1.0)
    np.testing.assert_allclose(means[0].numpy(), expected[:3], atol=0.05)
    np.testing.assert_allclose(means[1].numpy(), [*expected[3:], 0], atol=0.05)
    np.testing.assert_allclose(added / count, inputs @ expected, atol=0.05)


def test_a_field_that_tells_nothing_adds_little() -> None:
    rng = np.random.default_rng(4)
    ids = rng.integers(0, 20, 4000).astype(np.int32)
    drawn = Effects((FieldColumn(0, 20, True),), [ids], np.ones(4000))
    for _ in range(50):
        drawn.draw(rng.standard_normal(4000), 1.0, rng, keep=True)
    assert drawn.means(50, 1.0)[0].abs().max() < 0.05


@pytest.mark.parametrize("fields", [(SLOT, KIND), (SLOT,), (KIND,), ()])
def test_the_served_module_looks_weights_up(fields: tuple[FieldColumn, ...]) -> None:
    weights = {
        field.column: torch.arange(field.size) * 10.0**number for number, field in enumerate(fields)
    }
    module = FieldEffects(fields, weights)
    ids = torch.from_numpy(TRAIN.ids[:9])
    expected = sum((weights[f.column][ids[:, f.column].long()] for f in fields), torch.zeros(9))
    torch.testing.assert_close(module(ids).expand(9), expected)
    of_one_user = ids.clone()
    of_one_user[:, :5] = ids[0, :5]
    shared = module(of_one_user, torch.tensor(1))
    torch.testing.assert_close(shared.expand(9), module(of_one_user).expand(9))


def test_a_slot_is_not_taken_for_taste() -> None:
    told, untold = learner_of(), learner_of(fields=("user", "item"))
    told.fit(TRAIN, VALID)
    untold.fit(TRAIN, VALID)
    assert VALID.labels is not None
    known, unknown = (auc(VALID.labels, x.predict_logits(VALID)) for x in (told, untold))
    assert known > 0.76  # at best .79
    assert known > unknown + 0.15
    probability = 1 / (1 + np.exp(-told.predict_logits(VALID).astype(np.float64)))
    assert TRAIN.labels is not None
    for slot in np.arange(SLOTS) + FIRST_VALUE_ID:
        rate = TRAIN.labels[TRAIN.ids[:, 1] == slot].mean()
        assert probability[VALID.ids[:, 1] == slot].mean() == pytest.approx(rate, abs=0.05)


def test_values_never_seen_add_nothing(tmp_path: Path) -> None:
    learner = learner_of()
    learner.fit(TRAIN, VALID)
    weights = learner._fitted().effects
    assert set(weights) == {1, 6}
    assert weights[1][:FIRST_VALUE_ID].tolist() == [0.0, 0.0]
    learner.save(tmp_path)
    again = BMFLearner.load(tmp_path)
    np.testing.assert_array_equal(again.predict_logits(VALID), learner.predict_logits(VALID))


def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, again = learner_of(), learner_of()
    whole.fit(TRAIN, VALID)
    with pytest.raises(KilledError):
        learner_of().fit(TRAIN, VALID, FitOptions(checkpoint_dir=tmp_path, progress=kill_after(39)))
    again.fit(TRAIN, VALID, FitOptions(checkpoint_dir=tmp_path))
    np.testing.assert_array_equal(again.predict_logits(VALID), whole.predict_logits(VALID))


def test_rows_without_a_label_bring_their_values_along() -> None:
    """Rows between the classes are heard with where they were shown."""
    between = shown_table(2000, 3)
    between = EncodedBatch(between.dense, between.ids, grades=np.zeros(2000, np.float32))
    learner = learner_of()
    learner.fit(replace(TRAIN, grades=TRAIN.labels * 2 - 1), VALID, FitOptions(unlabelled=between))
    assert VALID.labels is not None
    assert auc(VALID.labels, learner.predict_logits(VALID)) > 0.76
