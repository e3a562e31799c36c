"""Trainings that follow an earlier one, and trainings whose time is up."""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np

from dynens.models.base import FitReport
from dynens.models.registry import build_learner
from dynens.run import finite
from tests.unit.models.learners import config_of, every_model
from tests.unit.models.tables import tiny_table


@every_model
def test_a_learner_that_follows_another_training_on_its_rows_becomes_that_learner(
    model: str,
) -> None:
    """It hears nothing of the validation rows it is given, whose labels are the wrong ones here."""
    table = tiny_table()
    assert table.valid.labels is not None
    wrong = dataclasses.replace(table.valid, labels=1 - table.valid.labels)
    first = build_learner(config_of(model), table.layout, table.stats, seed=3)
    report = first.fit(table.train, table.valid)
    told = FitReport.from_dict(json.loads(json.dumps(finite(report.to_dict()))))
    second = build_learner(first.config, table.layout, table.stats, seed=3)
    again = second.fit(table.train, wrong, follow=told)
    np.testing.assert_array_equal(
        second.predict_logits(table.valid), first.predict_logits(table.valid)
    )
    assert [p.valid_auc for p in again.curve] == [
        p.valid_auc for p in report.curve[: report.best_index + 1]
    ]
    assert (again.best_epoch, again.best_auc) == (report.best_epoch, report.best_auc)


@every_model
def test_training_ends_when_time_is_up_and_is_a_learner_all_the_same(model: str) -> None:
    table = tiny_table()
    learner = build_learner(config_of(model), table.layout, table.stats, seed=3)
    report = learner.fit(table.train, table.valid, ends_at=time.time())
    assert report.is_cut
    assert len(report.curve) == 1
    assert FitReport.from_dict(json.loads(json.dumps(finite(report.to_dict())))).is_cut
    assert np.isfinite(learner.predict_logits(table.valid)).all()
    unhurried = build_learner(config_of(model), table.layout, table.stats, seed=3)
    report = unhurried.fit(table.train, table.valid, ends_at=time.time() + 3600)
    assert not report.is_cut
    assert len(report.curve) > 1
