"""Trainings that follow an earlier one, trainings whose time is up, and how long they took."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dynens.models.base import FitOptions, FitProgress, FitReport
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
    again = second.fit(table.train, wrong, FitOptions(follow=told))
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
    report = learner.fit(table.train, table.valid, FitOptions(ends_at=time.time()))
    assert report.is_cut
    assert len(report.curve) == 1
    assert FitReport.from_dict(json.loads(json.dumps(finite(report.to_dict())))).is_cut
    assert np.isfinite(learner.predict_logits(table.valid)).all()
    unhurried = build_learner(config_of(model), table.layout, table.stats, seed=3)
    report = unhurried.fit(table.train, table.valid, FitOptions(ends_at=time.time() + 3600))
    assert not report.is_cut
    assert len(report.curve) > 1


class Clock:
    """Time that goes on by ten seconds with every validation point."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        for module in ("base", "bmf", "training"):
            fake = SimpleNamespace(time=lambda: self.now, monotonic=lambda: self.now)
            monkeypatch.setattr(f"dynens.models.{module}.time", fake)

    def tick(self, progress: FitProgress) -> None:
        self.now += 10.0


@pytest.mark.parametrize("model", ["dnn", "autorec", "bmf"])
def test_a_training_that_goes_on_took_the_time_of_all_its_epochs(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, clock, config = tiny_table(), Clock(monkeypatch), config_of(model)
    long = config.gibbs.model_copy(update={"sweeps": 50})
    config = config.model_copy(update={"gibbs": long})

    def learner():  # type: ignore[no-untyped-def]
        return build_learner(config, table.layout, table.stats, seed=3)

    undisturbed = learner().fit(table.train, table.valid, FitOptions(progress=clock.tick))

    def kill(progress: FitProgress) -> None:
        if progress.point.epoch == undisturbed.curve[2].epoch:
            raise KeyboardInterrupt
        clock.tick(progress)

    with pytest.raises(KeyboardInterrupt):
        learner().fit(table.train, table.valid, FitOptions(checkpoint_dir=tmp_path, progress=kill))
    clock.now += 1000.0
    report = learner().fit(
        table.train, table.valid, FitOptions(checkpoint_dir=tmp_path, progress=clock.tick)
    )
    assert len(report.curve) == len(undisturbed.curve) > 2
    assert report.seconds == pytest.approx(undisturbed.seconds, abs=10)


def test_a_training_that_was_cut_goes_on_where_there_is_time_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the epoch that was cut, as if it had not been."""
    table, clock = tiny_table(), Clock(monkeypatch)

    def fitted(**how):  # type: ignore[no-untyped-def]
        learner = build_learner(config_of("dnn"), table.layout, table.stats, seed=3)
        return learner, learner.fit(
            table.train, table.valid, FitOptions(progress=clock.tick, **how)
        )

    undisturbed, expected = fitted()
    limited = {"checkpoint_dir": tmp_path, "ends_at": clock.now + 20}
    cut, report = fitted(**limited)
    assert report.is_cut
    assert [point.epoch for point in report.curve[:2]] == [1.0, 2.0]
    assert 2 < report.curve[-1].epoch < 3
    again, repeated = fitted(**limited)
    assert repeated == report
    np.testing.assert_array_equal(
        again.predict_logits(table.valid), cut.predict_logits(table.valid)
    )
    longer, report = fitted(checkpoint_dir=tmp_path)
    assert not report.is_cut
    assert report.curve == expected.curve
    np.testing.assert_array_equal(
        longer.predict_logits(table.valid), undisturbed.predict_logits(table.valid)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
