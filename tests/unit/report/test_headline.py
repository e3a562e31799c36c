"""The sentences above the table of systems."""

from typing import Any

import pytest

from dynens.report.console import headline


def metrics_of(kept: float | None, low: float, value: float = 0.004) -> dict[str, Any]:
    return {
        "systems": {
            "student": {"cost_us_per_row": 1.2, "auc": 0.78},
            "dynamic": {"cost_us_per_row": 3.0, "auc": 0.79, "hard_fraction": 0.1},
            "static_ensemble": {"cost_us_per_row": 12.0, "auc": 0.8},
        },
        "gain_kept": kept,
        "paired": {
            "static_ensemble_minus_baseline": {"value": value, "low": low, "high": value + 0.002}
        },
    }


def test_a_gain_that_is_there_is_told_with_its_cost() -> None:
    (sentence,) = headline(metrics_of(0.98, low=0.002))
    assert "keeps 98% of the ensemble's gain over one model" in sentence
    assert "at 25% of its cost" in sentence


def test_the_cost_of_ranking_requests_stands_beside_it() -> None:
    metrics = metrics_of(0.98, low=0.002)
    metrics["systems"]["dynamic"]["candidate_cost_us_per_row"] = 1.0
    metrics["systems"]["static_ensemble"]["candidate_cost_us_per_row"] = 10.0
    (sentence,) = headline(metrics)
    assert "at 25% of its cost (10% in ranking requests), sending" in sentence


@pytest.mark.parametrize(("kept", "words"), [(5.57, "keeps all of"), (-0.4, "keeps none of")])
def test_shares_beyond_the_gain_are_all_or_none_of_it(kept: float, words: str) -> None:
    (sentence,) = headline(metrics_of(kept, low=0.0001))
    assert words in sentence
    assert "%" not in sentence.split(" over one model")[0]


def test_a_gain_within_noise_is_called_that() -> None:
    (sentence,) = headline(metrics_of(-4.5, low=-0.003, value=0.0004))
    assert "+0.0004 AUC with a 95 % interval of [-0.0030, +0.0024], is within noise" in sentence
    assert "450" not in sentence


def test_no_gain_is_no_gain() -> None:
    (sentence,) = headline(metrics_of(float("nan"), low=-0.003, value=-0.001))
    assert "not better than the baseline" in sentence


def test_metrics_of_an_older_run_have_no_such_pair() -> None:
    metrics = metrics_of(0.98, low=0.002)
    metrics["paired"] = {}
    assert "98%" in headline(metrics)[0]


def test_rows_of_one_class_compare_nothing() -> None:
    metrics = metrics_of(None, low=0.002)
    metrics["systems"]["static_ensemble"]["auc"] = None
    (sentence,) = headline(metrics)
    assert "all of one class" in sentence


@pytest.mark.parametrize(("auc", "how"), [(0.82, "better"), (0.7905, "as well"), (0.78, None)])
def test_a_student_that_hard_rows_do_not_help_is_named(auc: float, how: str | None) -> None:
    metrics = metrics_of(0.98, low=0.002)
    metrics["systems"]["student"]["auc"] = auc
    sentences = headline(metrics)[1:]
    told = f"student alone ranks these rows {how} (AUC {auc:.4f}) at 1.20 µs a row instead of 3.00"
    assert [told in sentence for sentence in sentences] == [True] * (how is not None)


@pytest.mark.parametrize(
    ("auc", "high", "told"), [(0.81, -0.01, True), (0.81, 0.001, False), (0.785, -0.001, False)]
)
def test_a_single_model_that_is_ahead_of_all_is_named(auc: float, high: float, told: bool) -> None:
    metrics = metrics_of(0.98, low=0.002)
    metrics["systems"]["best_single"] = {"name": "xgboost", "auc": auc, "cost_us_per_row": 1.7}
    metrics["paired"]["student_minus_best_single"] = {"value": -0.03, "low": -0.05, "high": high}
    words = "xgboost alone, the best single model on validation rows, ranks these rows better"
    assert [words in sentence for sentence in headline(metrics)[1:]] == [True] * told


def test_rows_without_a_hard_one_say_so_and_no_more() -> None:
    metrics = metrics_of(0.98, low=0.002)
    metrics["systems"]["dynamic"]["hard_fraction"] = 0.0
    assert "none of these is hard" in headline(metrics)[1]


def test_what_is_too_good_names_what_it_hangs_on() -> None:
    metrics = metrics_of(0.98, low=0.002)
    metrics["systems"]["static_ensemble"]["auc"] = 0.9997
    assert headline(metrics)[0].endswith("after the outcome in features.excluded.")
    fields = [{"name": name} for name in ("paid", "last_paid", "age")]
    metrics["attribution"] = {"fields": fields}
    assert headline(metrics)[0].endswith("the answers hang most on paid and last_paid.")
    assert "0.9997" in headline(metrics)[0]


@pytest.mark.parametrize(
    ("entropy", "ratio", "told"),
    [
        (4.5, 6.9, "6.9 times as many positive rows are predicted as there are"),
        (1.3, 0.25, "0.25 times as many positive rows are predicted as there are"),
        (0.9, 6.9, None),  # it still tells rows apart better than their average does
        (1.3, 1.2, None),  # wrong in another way than by the average
        (1.02, 1.8, None),  # a few positive rows more or less do that
        (None, None, None),  # of one class
    ],
)
def test_probabilities_that_are_far_off_are_told_before_the_gains(
    entropy: float | None, ratio: float | None, told: str | None
) -> None:
    metrics = metrics_of(0.98, low=0.002)
    metrics["systems"]["dynamic"] |= {"normalized_entropy": entropy, "calibration_ratio": ratio}
    sentences = headline(metrics)
    assert len(sentences) == (1 if told is None else 2)
    if told is not None:
        assert told in sentences[0]
        assert "newer" in sentences[0]


def test_a_second_pass_is_told() -> None:
    metrics = metrics_of(0.98, low=0.002) | {"refit": True, "rows": {"valid": 12_345}}
    assert "trained twice: once to settle everything on 12,345" in headline(metrics)[-1]
    assert len(headline(metrics | {"refit": False})) == 1
