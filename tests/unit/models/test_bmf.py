"""The Bayesian matrix factorisation, beyond what every learner promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import norm

from dynens.batch import FIRST_VALUE_ID, EncodedBatch, FeatureLayout, FieldPair, SparseField
from dynens.config.learner import GibbsConfig, LearnerConfig
from dynens.errors import ConfigError, TrainingError
from dynens.metrics import auc
from dynens.models import gibbs
from dynens.models.base import FitOptions
from dynens.models.bmf import BMFLearner
from dynens.models.gibbs import Sampler, heard_rows, vector_length
from dynens.models.pairs import LONGEST_PRODUCT
from tests.unit.killed import KilledError, kill_after
from tests.unit.models.tables import TinyStats

NO_STATS = TinyStats(np.zeros((0, 2), np.float32), (), ())
USERS, ITEMS = 120, 80
LAYOUT = FeatureLayout(
    (),
    (SparseField("user", USERS + FIRST_VALUE_ID), SparseField("item", ITEMS + FIRST_VALUE_ID)),
    context_fields=1,
)
PAIR = LAYOUT.largest_pair()
assert PAIR is not None


def taste_table(rows: int, seed: int, told: float = 1.0, by_meeting: bool = False) -> EncodedBatch:
    """Users of four tastes among items of four kinds, of which a share `told` is heard.

    With `by_meeting` users meet, as a rule, items of their own taste.
    """
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, USERS, rows), rng.integers(0, ITEMS, rows)
    if by_meeting:
        own = rng.random(rows) < 0.7
        items[own] = items[own] // 4 * 4 + users[own] % 4
    likes = rng.random(rows) < np.where(users % 4 == items % 4, 0.9, 0.2)
    clicks = np.where(rng.random(rows) < told, likes, rng.random(rows) < 0.4)
    ids = np.stack([users, items], axis=1).astype(np.int32) + FIRST_VALUE_ID
    return EncodedBatch(np.zeros((rows, 0), np.float32), ids, clicks.astype(np.float32))


TRAIN, VALID = taste_table(4000, 1), taste_table(1500, 2)


def config_of(**updates: object) -> LearnerConfig:
    settings = GibbsConfig(sweeps=60, burn_in=20, side_dim=16)
    config = LearnerConfig(model="bmf", embedding_dim=6, gibbs=settings)
    return config.model_copy(update=updates)


def learner_of(seed: int = 1, **updates: object) -> BMFLearner:
    return BMFLearner(config_of(**updates), LAYOUT, NO_STATS, seed)


def sampler_of(train: EncodedBatch, **updates: object) -> Sampler:
    config = config_of(**updates)
    return Sampler(heard_rows(LAYOUT, config, train, None, seed=1), PAIR, config, seed=1)


def auc_of(batch: EncodedBatch, logits: np.ndarray) -> float:
    assert batch.labels is not None
    return auc(batch.labels, logits)


@pytest.fixture(scope="module")
def fitted() -> BMFLearner:
    learner = learner_of()
    learner.fit(TRAIN, VALID)
    return learner


def test_users_are_known_by_what_others_alike_click(fitted: BMFLearner) -> None:
    assert auc_of(VALID, fitted.predict_logits(VALID)) > 0.75  # at best .85


def test_its_logits_are_probabilities_of_a_click(fitted: BMFLearner) -> None:
    """The normal distribution is the logistic, but for tails; few draws are too sure of it."""
    probability = 1 / (1 + np.exp(-fitted.predict_logits(VALID).astype(np.float64)))
    assert VALID.labels is not None
    assert probability.mean() == pytest.approx(VALID.labels.mean(), abs=0.04)
    order = np.argsort(probability)
    for fifth in np.array_split(order, 5):
        assert probability[fifth].mean() == pytest.approx(VALID.labels[fifth].mean(), abs=0.13)


def test_what_validation_likes_best_is_kept(tmp_path: Path) -> None:
    """Labels drawn at random are overfitted ever more; what is kept is the best of the curve."""
    noise = taste_table(2000, 5, told=0.0)
    learner = learner_of(gibbs=GibbsConfig(sweeps=400, burn_in=10, side_dim=16))
    report = learner.fit(noise, VALID)
    aucs = [point.valid_auc for point in report.curve]
    assert report.best_auc == max(aucs)
    assert auc_of(VALID, learner.predict_logits(VALID)) == pytest.approx(max(aucs), abs=1e-9)
    assert len(aucs) == aucs.index(max(aucs)) + 5  # and then it ends
    assert report.best_epoch == 20 + 10 * aucs.index(max(aucs))


def test_what_users_have_met_tells_of_them() -> None:
    few = taste_table(900, 3, by_meeting=True)
    new = taste_table(3000, 4)
    settings = config_of().gibbs
    told = learner_of()
    told.fit(few, new)
    untold = learner_of(gibbs=settings.model_copy(update={"side_dim": 0}))
    untold.fit(few, new)
    met_, unmet = (auc_of(new, x.predict_logits(new)) for x in (told, untold))
    assert met_ > unmet + 0.02


def test_rows_without_a_label_say_who_met_whom() -> None:
    few, others = taste_table(500, 3, by_meeting=True), taste_table(4000, 6, by_meeting=True)
    others = EncodedBatch(others.dense, others.ids)
    new = taste_table(3000, 4)
    alone, beside = learner_of(), learner_of()
    alone.fit(few, new)
    beside.fit(few, new, FitOptions(unlabelled=others))
    assert auc_of(new, beside.predict_logits(new)) > auc_of(new, alone.predict_logits(new)) + 0.02


def test_rows_between_the_classes_are_heard_and_others_without_a_label_are_not() -> None:
    grades = np.array([0.0, np.nan, 0.0], np.float32)
    ids = TRAIN.ids[:3]
    unlabelled = EncodedBatch(np.zeros((3, 0), np.float32), ids, grades=grades)
    graded = replace(TRAIN, grades=TRAIN.labels * 2 - 1)
    heard = heard_rows(LAYOUT, config_of(), graded, unlabelled, seed=1)
    assert len(heard.users) == len(TRAIN) + 2
    np.testing.assert_array_equal(heard.users[-2:], ids[[0, 2], 0])
    np.testing.assert_allclose(heard.value[-2:].numpy(), heard.threshold, atol=1e-6)
    untold = heard_rows(LAYOUT, config_of(), graded, replace(unlabelled, grades=None), seed=1)
    assert len(untold.users) == len(TRAIN)
    np.testing.assert_allclose(heard.sides[0], untold.sides[0])


def test_tables_say_what_draws_say_in_the_mean() -> None:
    sampler = sampler_of(TRAIN)
    sampler.run_to(12, burn_in=10)  # as many draws as their product has room for
    moments = sampler.moments
    assert moments.count == 2
    (left, left_bias), (right, right_bias) = sampler.posterior(2 * sampler.length).product
    assert left.shape == (USERS + FIRST_VALUE_ID, 2 * sampler.length)
    said = left @ right.T + left_bias[:, None] + right_bias
    vectors = moments.tables[0] @ moments.tables[1].T
    mean = (vectors + moments.tables[2][:, None] + moments.tables[3]) / 2
    logits = 1.702 * (moments.alpha / 2) ** 0.5 * (mean - sampler.heard.threshold)
    torch.testing.assert_close(said.double(), logits, atol=1e-4, rtol=1e-4)


def test_clicks_are_heard_as_the_side_of_a_threshold() -> None:
    """Values are drawn from the normal around what is said, cut off at the threshold."""
    sampler = sampler_of(TRAIN)
    sampler.run_to(5, burn_in=1)
    heard = sampler.heard
    assert heard.sign is not None
    rng = np.random.default_rng(7)
    drawn = np.stack([sampler._values(rng).numpy() for _ in range(2000)]) - heard.threshold
    np.testing.assert_array_equal(np.sign(drawn), np.broadcast_to(heard.sign, drawn.shape))
    said = sampler._products().numpy() - heard.threshold
    for row in range(50):
        beyond = heard.sign[row] * said[row]
        expected = said[row] + heard.sign[row] * norm.pdf(beyond) / norm.cdf(beyond)
        assert drawn[:, row].mean() == pytest.approx(expected, abs=0.1)
    assert sampler.alpha == 1


def test_grades_are_heard_as_they_are() -> None:
    assert TRAIN.labels is not None
    sampler = sampler_of(replace(TRAIN, grades=TRAIN.labels * 2 - 1))
    sampler.run_to(3, burn_in=1)
    assert sampler._values(np.random.default_rng(1)) is sampler.heard.value
    assert sampler.alpha != 1


def test_unknown_ids_are_what_is_expected_of_any(fitted: BMFLearner) -> None:
    unknown = replace(VALID, ids=np.zeros_like(VALID.ids))
    logits = fitted.predict_logits(unknown)
    assert np.ptp(logits) == 0
    known = fitted.predict_logits(VALID)
    assert abs(logits[0] - known.mean()) < 0.5 * known.std()


def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = learner_of()
    report = whole.fit(TRAIN, VALID)
    with pytest.raises(KilledError):
        learner_of().fit(TRAIN, VALID, FitOptions(checkpoint_dir=tmp_path, progress=kill_after(39)))
    seen: list[float] = []
    again = learner_of()
    continued = again.fit(
        TRAIN,
        VALID,
        FitOptions(checkpoint_dir=tmp_path, progress=lambda p: seen.append(p.point.epoch)),
    )
    assert seen == [50, 60]
    np.testing.assert_array_equal(again.predict_logits(VALID), whole.predict_logits(VALID))
    assert [p.epoch for p in continued.curve] == [p.epoch for p in report.curve] == [30, 40, 50, 60]
    after_the_end = learner_of()
    after_the_end.fit(TRAIN, VALID, FitOptions(checkpoint_dir=tmp_path))
    np.testing.assert_array_equal(after_the_end.predict_logits(VALID), whole.predict_logits(VALID))


def test_one_that_is_not_fitted_says_so() -> None:
    with pytest.raises(TrainingError, match="bmf is not fitted; call fit first"):
        learner_of().predict_logits(VALID)


def test_weights_that_are_far_apart_leave_a_definite_matrix() -> None:
    weight = np.where(np.arange(len(TRAIN)) % 100 == 0, 1e30, 1e-30).astype(np.float32)
    learner = learner_of()
    learner.fit(replace(TRAIN, sample_weight=weight), VALID)
    assert np.isfinite(learner.predict_logits(VALID)).all()


def test_a_weight_that_all_rows_have_changes_nothing(fitted: BMFLearner) -> None:
    for weight in (20.0, 1e-6):
        weighed = learner_of()
        given = np.full(len(TRAIN), weight, np.float32)
        weighed.fit(replace(TRAIN, sample_weight=given), VALID)
        np.testing.assert_allclose(
            weighed.predict_logits(VALID), fitted.predict_logits(VALID), atol=1e-3
        )


def test_negatives_that_stand_for_many_make_positives_rarer_and_nothing_else(
    fitted: BMFLearner,
) -> None:
    assert TRAIN.labels is not None
    weight = np.where(TRAIN.labels > 0, 1, 20).astype(np.float32)
    weighed = learner_of()
    weighed.fit(replace(TRAIN, sample_weight=weight), VALID)
    np.testing.assert_allclose(
        weighed.predict_logits(VALID), fitted.predict_logits(VALID) - np.log(20), atol=1e-3
    )


def test_rows_of_weight_zero_are_not_heard() -> None:
    weight = (np.arange(len(TRAIN)) % 2).astype(np.float32)
    settings = GibbsConfig(sweeps=160, burn_in=20, side_dim=0)
    learner, half = learner_of(gibbs=settings), learner_of(gibbs=settings)
    learner.fit(replace(TRAIN, sample_weight=weight), VALID)
    half.fit(TRAIN.take(weight > 0), VALID)
    assert auc_of(VALID, learner.predict_logits(VALID)) == pytest.approx(
        auc_of(VALID, half.predict_logits(VALID)), abs=0.02
    )


def test_half_a_million_rows_of_one_user_leave_a_definite_matrix() -> None:
    rng = np.random.default_rng(8)
    ids = np.stack([np.zeros(500_000), rng.integers(0, 3, 500_000)], axis=1).astype(np.int32)
    labels = (rng.random(500_000) < 0.3).astype(np.float32)
    crowd = EncodedBatch(np.zeros((len(ids), 0), np.float32), ids, labels)
    learner = learner_of(embedding_dim=32, gibbs=GibbsConfig(sweeps=3, burn_in=1))
    learner.fit(crowd, VALID)
    assert np.isfinite(learner.predict_logits(crowd)).all()


def test_labels_that_are_all_the_same_are_what_is_expected() -> None:
    learner = learner_of()
    learner.fit(replace(TRAIN, labels=np.ones_like(TRAIN.labels)), VALID)
    assert np.isfinite(learner.predict_logits(VALID)).all()


def test_tables_without_two_fields_are_refused() -> None:
    layout = FeatureLayout((), (SparseField("user", 5),), context_fields=1)
    with pytest.raises(ConfigError, match="bmf: bmf needs two fields of one value each"):
        BMFLearner(config_of(), layout, NO_STATS, 1)


@pytest.mark.parametrize(
    ("ids", "length"), [(3000, 32), (39_000, 32), (90_000, 21), (1_000_000, 6), (50_000_000, 4)]
)
def test_many_ids_have_shorter_vectors(ids: int, length: int) -> None:
    pair = FieldPair((0, 1), (ids, 500), (True, False))
    config = config_of(embedding_dim=32)
    assert vector_length(pair, config) == length
    assert BMFLearner.product_width(pair, config) == 2 * length


def test_long_vectors_are_served_no_longer_than_others() -> None:
    learner = learner_of(embedding_dim=70, gibbs=GibbsConfig(sweeps=2, burn_in=1, side_dim=0))
    learner.fit(TRAIN, VALID)
    assert learner.product_width(PAIR, learner.config) == LONGEST_PRODUCT
    for vectors, _ in learner.tables():
        assert vectors.shape[1] == LONGEST_PRODUCT


def test_a_long_product_keeps_its_leading_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added draw by draw and shortened on the way is what all draws come to."""
    sampler, whole = sampler_of(TRAIN), sampler_of(TRAIN)
    monkeypatch.setattr(gibbs.Moments, "add", _add_all(gibbs.Moments.add, whole))
    whole.run_to(60, burn_in=20)
    monkeypatch.undo()
    sampler.run_to(60, burn_in=20)
    left, right = sampler.moments.tables[:2]
    assert left.shape[1] <= 4 * 2 * sampler.length < whole.moments.tables[0].shape[1]
    exact = whole.moments.tables[0] @ whole.moments.tables[1].T
    assert (left @ right.T - exact).norm() < 0.05 * exact.norm()


def _add_all(add, whole):  # type: ignore[no-untyped-def]
    def wrapped(self, users, items, length):  # type: ignore[no-untyped-def]
        add(self, users, items, 10_000 if self is whole.moments else length)

    return wrapped


def test_sweeps_that_count_are_asked_for() -> None:
    with pytest.raises(ValidationError, match="burn_in is 20 and must be below sweeps, 20"):
        GibbsConfig(sweeps=20, burn_in=20)
