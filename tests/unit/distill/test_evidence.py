"""Whether departures from a teacher are knowledge or noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dynens.distill.evidence import departures_tell
from dynens.metrics import sigmoid


def test_the_statistic_by_hand() -> None:
    """At p = 1/2 everywhere a mean departure of zero is all rest: Σ(y - p)d / √Σ((y - p)d)²."""
    teacher = np.zeros(4, np.float32)
    student = np.array([1.0, -1.0, 2.0, -2.0], np.float32)
    labels = np.array([1.0, 0.0, 1.0, 1.0])
    # ½·1 + ½·1 + ½·2 - ½·2 over √(¼ + ¼ + 1 + 1)
    expected = 1.0 / math.sqrt(2.5)
    assert departures_tell(teacher, student, labels, np.ones(4)) == pytest.approx(expected)


def test_a_row_of_weight_two_pulls_twice() -> None:
    teacher = np.zeros(4, np.float32)
    student = np.array([1.0, -1.0, 2.0, -2.0], np.float32)
    weight = np.array([2.0, 2.0, 1.0, 1.0])
    labels = np.array([1.0, 0.0, 1.0, 1.0])
    # The weighted mean departure is zero: 1 + 1 + 1 - 1 over √(1 + 1 + 1 + 1).
    assert departures_tell(teacher, student, labels, weight) == pytest.approx(1.0)


def test_a_student_on_another_scale_departs_in_nothing() -> None:
    teacher = np.random.default_rng(0).normal(size=200)
    labels = (np.arange(200) % 3 == 0).astype(float)
    assert math.isnan(departures_tell(teacher, 2 * teacher + 1, labels, np.ones(200)))
    assert math.isnan(departures_tell(teacher, teacher, labels, np.ones(200)))


def test_nothing_can_be_told_of_one_class_of_no_rows_or_of_infinite_logits() -> None:
    teacher, student = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    labels, ones = np.array([0.0, 1.0, 1.0]), np.ones(3)
    assert not math.isnan(departures_tell(teacher, student, labels, ones))
    assert math.isnan(departures_tell(teacher, student, ones, ones))
    assert math.isnan(departures_tell(teacher, student, labels, 0 * ones))
    assert math.isnan(departures_tell(teacher[:0], student[:0], labels[:0], ones[:0]))
    assert math.isnan(departures_tell(teacher, student + np.array([0, 0, np.inf]), labels, ones))


def test_noise_is_standard_normal_and_knowledge_is_not() -> None:
    """Of 200 draws; the truth holds a part that the teacher does not know and one student does."""
    rng = np.random.default_rng(1)
    noise, knowledge = [], []
    for _ in range(200):
        known, missed = rng.normal(size=2000), 0.5 * rng.normal(size=2000)
        labels = (rng.random(2000) < sigmoid(known + missed)).astype(float)
        ones = np.ones(2000)
        noise.append(departures_tell(known, known + rng.normal(size=2000), labels, ones))
        knowledge.append(departures_tell(known, known + missed, labels, ones))
    assert abs(np.mean(noise)) < 0.3
    assert 0.85 < np.std(noise) < 1.15
    assert np.min(knowledge) > 3
