"""The collaborative autoencoders, beyond what every learner promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dynens.batch import FIRST_VALUE_ID, EncodedBatch, FeatureLayout, FieldPair, SparseField
from dynens.config.learner import LearnerConfig, OptimizerConfig
from dynens.errors import ConfigError, TrainingError
from dynens.layers.products import PairProduct
from dynens.metrics import auc
from dynens.models import autorec
from dynens.models.autorec import AutoRecLearner
from dynens.models.base import FitOptions, FitProgress
from dynens.models.net_learner import WEIGHTS_FILE
from dynens.models.pairs import ScoredRows
from dynens.models.ratings import pair_ratings, unknown_rate
from dynens.models.registry import load_learner
from dynens.models.training import predict_logits
from tests.unit.models.tables import TinyStats

NO_STATS = TinyStats(np.zeros((0, 2), np.float32), (), ())
USERS, ITEMS = 120, 80


def layout_of(*sizes: int, context: int = 1) -> FeatureLayout:
    names = ("user", "item", "other")
    fields = tuple(SparseField(n, size) for n, size in zip(names, sizes, strict=False))
    return FeatureLayout((), fields, context_fields=context)


LAYOUT = layout_of(USERS + FIRST_VALUE_ID, ITEMS + FIRST_VALUE_ID)


def taste_table(rows: int, seed: int) -> EncodedBatch:
    """Users of four tastes among items of four kinds; neither user nor item alone tells a click."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, USERS, rows), rng.integers(0, ITEMS, rows)
    clicks = rng.random(rows) < np.where(users % 4 == items % 4, 0.9, 0.2)
    ids = np.stack([users, items], axis=1).astype(np.int32) + FIRST_VALUE_ID
    return EncodedBatch(np.zeros((rows, 0), np.float32), ids, clicks.astype(np.float32))


TRAIN, VALID = taste_table(4000, 1), taste_table(1500, 2)
assert TRAIN.labels is not None
# Clicks out of taste, and rows without one within it, are close to the threshold.
_AS_EXPECTED = (TRAIN.ids[:, 0] % 4 == TRAIN.ids[:, 1] % 4) == (TRAIN.labels > 0)
_GRADES = np.where(_AS_EXPECTED, 1.2, 0.2) * (TRAIN.labels * 2 - 1)
GRADED = replace(TRAIN, grades=_GRADES.astype(np.float32))


def learner_of(**updates: object) -> AutoRecLearner:
    options = OptimizerConfig(learning_rate=0.01, max_epochs=30, embedding_l2=3e-4)
    config = LearnerConfig(model="autorec", embedding_dim=16, optimizer=options)
    return AutoRecLearner(config.model_copy(update=updates), LAYOUT, NO_STATS, 1)


@pytest.fixture(scope="module")
def fitted() -> AutoRecLearner:
    learner = learner_of()
    learner.fit(TRAIN, VALID)
    return learner


@pytest.fixture(scope="module")
def graded() -> AutoRecLearner:
    learner = learner_of()
    learner.fit(GRADED, VALID)
    return learner


@pytest.fixture(scope="module")
def branched() -> AutoRecLearner:
    learner = learner_of(branches=2)
    learner.fit(TRAIN, VALID)
    return learner


def autorec_pair() -> FieldPair:
    pair = LAYOUT.largest_pair()
    assert pair is not None
    return pair


def auc_of(batch: EncodedBatch, logits: np.ndarray) -> float:
    assert batch.labels is not None
    return auc(batch.labels, logits)


def test_users_are_known_by_what_others_alike_click(fitted: AutoRecLearner) -> None:
    assert auc_of(VALID, fitted.predict_logits(VALID)) > 0.75  # at best .85


def test_each_side_alone_says_something_and_both_say_more(fitted: AutoRecLearner) -> None:
    assert fitted.network_ is not None
    user, item = pair_ratings(fitted.pair, VALID)
    network = fitted.network_
    at = [np.asarray(VALID.ids[:, c], np.int64) for c in (0, 1)]
    (both,) = network.pairs()
    user_side = (both.user.hidden[at[0]] * both.user.decode[at[1]]).sum(1).detach().numpy()
    item_side = (both.item.hidden[at[1]] * both.item.decode[at[0]]).sum(1).detach().numpy()
    assert auc_of(VALID, user_side) > 0.7
    assert auc_of(VALID, item_side) > 0.7
    assert np.corrcoef(user_side, item_side)[0, 1] < 0.99
    assert len(user.labels) == len(item.labels) == len(VALID)


def test_training_rows_are_answered_without_their_own_labels(fitted: AutoRecLearner) -> None:
    before = fitted.training_logits(TRAIN)
    assert before.shape == (len(TRAIN),)
    assert before.dtype == np.float32
    labels = np.array(TRAIN.labels)
    row = 7
    labels[row] = 1 - labels[row]
    after = fitted.training_logits(replace(TRAIN, labels=labels))
    assert after[row] == pytest.approx(before[row], abs=1e-5)
    same_user = (TRAIN.ids[:, 0] == TRAIN.ids[row, 0]) & (np.arange(len(TRAIN)) != row)
    assert np.abs(after - before)[same_user].max() > 1e-3
    # Where a row's own label is in the sum, it is told by itself.
    assert auc_of(TRAIN, fitted.predict_logits(TRAIN)) > auc_of(TRAIN, before)


def test_a_users_vector_is_the_sum_of_its_graded_rows(graded: AutoRecLearner) -> None:
    assert graded.network_ is not None
    assert GRADED.grades is not None
    side = {n: w.numpy() for n, w in graded.network_.pairs()[0].user.state_dict().items()}
    user = 5
    mine = GRADED.ids[:, 0] == user
    items = GRADED.ids[mine, 1]
    total = GRADED.grades[mine] @ side["encode"][items] + side["seen"][items].sum(axis=0)
    per_user = len(GRADED) / len(np.unique(GRADED.ids[:, 0]))
    total = total * np.sqrt(per_user / mine.sum()) + side["hidden_bias"]
    np.testing.assert_allclose(side["hidden"][user], 1 / (1 + np.exp(-total)), atol=1e-5)
    assert np.abs(side["seen"]).max() > 0.01


def test_grades_tell_more_than_labels() -> None:
    by_grade, by_label = learner_of(), learner_of()
    few = GRADED.take(slice(0, 2500))
    by_grade.fit(few, VALID)
    by_label.fit(replace(few, grades=None), VALID)
    better, worse = (auc_of(VALID, one.predict_logits(VALID)) for one in (by_grade, by_label))
    assert better > worse + 0.01  # .754 and .733


def test_graded_training_rows_are_answered_without_their_own(graded: AutoRecLearner) -> None:
    assert GRADED.grades is not None
    before = graded.training_logits(GRADED)
    grades = np.array(GRADED.grades)
    grades[7] = -3.0
    after = graded.training_logits(replace(GRADED, grades=grades))
    assert after[7] == pytest.approx(before[7], abs=1e-5)
    assert np.abs(after - before).max() > 1e-3


def test_branches_answer_on_average(branched: AutoRecLearner) -> None:
    assert branched.network_ is not None
    each = [
        ScoredRows(PairProduct.of(branched.pair, branch.tables()))
        for branch in branched.network_.pairs()
    ]
    logits = [predict_logits(scored, VALID) for scored in each]
    assert np.corrcoef(*logits)[0, 1] < 0.999
    np.testing.assert_allclose(
        branched.predict_logits(VALID), np.mean(logits, axis=0), rtol=0, atol=1e-4
    )
    apart = [auc_of(VALID, one) for one in logits]
    assert auc_of(VALID, branched.predict_logits(VALID)) > np.mean(apart)
    assert auc_of(TRAIN, branched.training_logits(TRAIN)) > 0.75


def test_branches_are_loaded_as_they_were(branched: AutoRecLearner, tmp_path: Path) -> None:
    branched.save(tmp_path)
    loaded = load_learner(tmp_path)
    np.testing.assert_array_equal(loaded.predict_logits(VALID), branched.predict_logits(VALID))
    np.testing.assert_array_equal(loaded.training_logits(TRAIN), branched.training_logits(TRAIN))


def test_learners_of_before_are_loaded(fitted: AutoRecLearner, tmp_path: Path) -> None:
    """They had one branch, without a name, and saw no rows as such."""
    fitted.save(tmp_path)
    with np.load(tmp_path / WEIGHTS_FILE) as arrays:
        kept = {name.removeprefix("branches.0."): arrays[name] for name in arrays.files}
    assert {name.partition(".")[0] for name in kept} == {"user", "item"}
    np.savez(tmp_path / WEIGHTS_FILE, **{n: w for n, w in kept.items() if "seen" not in n})
    np.testing.assert_array_equal(
        load_learner(tmp_path).predict_logits(VALID), fitted.predict_logits(VALID)
    )


def test_unknown_users_and_items_have_finite_answers(fitted: AutoRecLearner) -> None:
    ids = np.array([[0, 5], [5, 0], [1, 1]], np.int32)
    rows = EncodedBatch(np.zeros((3, 0), np.float32), ids)
    assert np.isfinite(fitted.predict_logits(rows)).all()


def test_of_an_unknown_pair_the_rate_of_items_is_expected() -> None:
    assert TRAIN.labels is not None
    rare = np.random.default_rng(0).random(len(TRAIN)) < 0.1
    table = replace(TRAIN, labels=TRAIN.labels * rare.astype(np.float32))
    rate = unknown_rate(autorec_pair(), table)
    assert rate == pytest.approx(float(table.labels.mean()), abs=0.005)
    learner = learner_of()
    learner.fit(table, VALID)
    ids = np.zeros((1, 2), np.int32)
    (logit,) = learner.predict_logits(EncodedBatch(np.zeros((1, 0), np.float32), ids))
    assert 1 / (1 + np.exp(-logit)) == pytest.approx(rate, rel=0.3)


def test_new_items_are_like_the_rare_ones() -> None:
    """One item has nearly all rows and clicks, the others have neither."""
    ids = np.full((1000, 2), 2, np.int32)
    ids[:100, 1] = np.arange(100) % 50 + 3
    labels = np.ones(1000, np.float32)
    labels[:100] = 0
    rate = unknown_rate(autorec_pair(), EncodedBatch(np.zeros((1000, 0), np.float32), ids, labels))
    assert rate == pytest.approx((50 * 0.9 / 3 + (900 + 0.9) / 901) / 51)


def test_weighted_rows_count_by_their_weight() -> None:
    assert TRAIN.labels is not None
    rows = np.concatenate([np.arange(len(TRAIN)), np.flatnonzero(TRAIN.labels == 0)])
    doubled = learner_of(dropout=0.0)
    doubled.fit(TRAIN.take(rows), VALID)
    weighted = learner_of(dropout=0.0)
    weights = np.where(TRAIN.labels == 0, 2.0, 1.0).astype(np.float32)
    weighted.fit(replace(TRAIN, sample_weight=weights), VALID)
    plain = learner_of(dropout=0.0)
    plain.fit(TRAIN, VALID)
    means = [np.mean(learner.predict_logits(VALID)) for learner in (doubled, weighted, plain)]
    assert means[1] < means[2] - 0.2
    assert abs(means[1] - means[0]) < 0.3


def test_a_killed_training_continues_to_the_same_learner(tmp_path: Path) -> None:
    undisturbed = learner_of()
    undisturbed.fit(TRAIN, VALID)

    def kill(progress: FitProgress) -> None:
        if progress.point.epoch > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learner_of().fit(TRAIN, VALID, FitOptions(checkpoint_dir=tmp_path, progress=kill))
    continued = learner_of()
    report = continued.fit(TRAIN, VALID, FitOptions(checkpoint_dir=tmp_path))
    assert report.curve[0].epoch == 1.0
    np.testing.assert_array_equal(
        continued.predict_logits(VALID), undisturbed.predict_logits(VALID)
    )


def test_a_loaded_learner_answers_training_rows_alike(
    fitted: AutoRecLearner, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    loaded = load_learner(tmp_path)
    np.testing.assert_array_equal(loaded.training_logits(TRAIN), fitted.training_logits(TRAIN))


def test_tables_of_many_ids_get_shorter_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autorec, "_MOST_WEIGHTS", 3 * 5 * (USERS + ITEMS + 2 * FIRST_VALUE_ID))
    learner = learner_of()
    learner.fit(TRAIN, VALID)
    assert learner.network_ is not None
    assert learner.network_.pairs()[0].user.hidden.shape == (USERS + FIRST_VALUE_ID, 5)


def test_the_pair_has_one_field_of_each_side_and_the_most_ids() -> None:
    pair = layout_of(50, 90, 70, context=1).largest_pair()
    assert pair is not None
    assert (pair.columns, pair.sizes, pair.is_context) == ((0, 1), (50, 90), (True, False))
    pair = layout_of(50, 90, 70, context=0).largest_pair()
    assert pair is not None
    assert (pair.columns, pair.is_context) == ((1, 2), (False, False))
    pair = layout_of(50, 90, 70, context=0).largest_pair(("user", "other"))
    assert pair is not None
    assert set(pair.columns) == {0, 2}
    assert layout_of(50, 90, context=2).largest_pair() is None


def test_keys_go_before_larger_fields() -> None:
    layout = layout_of(50, 90, 700, context=1)
    pair = replace(layout, keys=("item", "user")).largest_pair()
    assert pair is not None
    assert pair.columns == (0, 1)
    crossed = layout.largest_pair()
    assert crossed is not None
    assert crossed.columns == (0, 2)
    known = FeatureLayout.from_dict(replace(layout, keys=("item",)).to_dict())
    assert known.keys == ("item",)
    assert known == layout  # layouts of before say nothing of keys


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(ConfigError, match="autorec needs two fields of one value each"):
        AutoRecLearner(LearnerConfig(model="autorec"), layout_of(50), NO_STATS, 1)
    with pytest.raises(TrainingError, match="autorec is not fitted"):
        learner_of().predict_logits(VALID)


def test_rows_without_a_label_tell_who_is_alike() -> None:
    """Users have two labels each, and unlabelled rows with items of their taste alone."""
    rng = np.random.default_rng(3)
    few = TRAIN.take(np.arange(2 * USERS))
    users = rng.integers(0, USERS, 4000)
    items = users % 4 + 4 * rng.integers(0, ITEMS // 4, len(users))
    ids = np.stack([users, items], axis=1).astype(np.int32) + FIRST_VALUE_ID
    unlabelled = EncodedBatch(np.zeros((len(users), 0), np.float32), ids)
    alone, told = learner_of(), learner_of()
    alone.fit(few, VALID)
    told.fit(few, VALID, FitOptions(unlabelled=unlabelled))
    assert VALID.labels is not None
    before, after = (auc(VALID.labels, x.predict_logits(VALID)) for x in (alone, told))
    assert before is not None
    assert after is not None
    assert after > before + 0.05
    # Its training rows are told from the rows without a label, too.
    with_, without = told.training_logits(few, unlabelled), told.training_logits(few)
    assert np.abs(with_ - without).max() > 0.01


def test_ratings_of_unlabelled_rows_have_no_grade_and_no_label() -> None:
    more = EncodedBatch(np.zeros((2, 0), np.float32), np.array([[5, 6], [5, 7]], np.int32))
    weighted = replace(TRAIN, sample_weight=np.full(len(TRAIN), 2.0, np.float32))
    pair = LAYOUT.largest_pair()
    assert pair is not None
    users, items = pair_ratings(pair, weighted, more)
    mine = np.flatnonzero(np.isnan(users.labels.numpy()))
    assert users.owner[mine].tolist() == [5, 5]
    assert users.column[mine].tolist() == [6, 7]
    assert users.grade[mine].tolist() == [0.0, 0.0]
    assert users.count[5] == (TRAIN.ids[:, 0] == 5).sum() + 2
    assert items.count[7] == (TRAIN.ids[:, 1] == 7).sum() + 1
    assert len(users.labels) == len(items.labels) == len(TRAIN) + 2
