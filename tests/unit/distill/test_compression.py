"""Training on the way to INT8, and beside the student that one was cut from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit

from dynens.config.distill import DistillConfig, QuantisationAwareConfig
from dynens.distill.trainer import DistillTrainer, Int8Teaching
from dynens.ensemble.scorer import PoolScorer
from dynens.metrics import logloss
from dynens.models.batches import TensorBatch
from dynens.models.quantize import quantize_graph
from tests.unit.distill.students import (
    TABLE,
    fit,
    learner_of,
    teaching_of,
)
from tests.unit.killed import KilledError, kill_after

COMPRESSED = {"pruning": {"share": 0.5, "mutual": 0.5}, "quantisation_aware": {"weight": 1.0}}


def compressed_teaching() -> dict[str, object]:
    """What a student on its way to INT8 is taught beside its teacher, and a whole student."""
    before, whole = learner_of(max_epochs=1), learner_of(max_epochs=1)
    for learner in (before, whole):
        fit(learner, {})
    int8 = Int8Teaching(before.networks_[0], TABLE.train)
    return {"int8": int8, "unpruned": whole.networks_[0]}


def test_a_continued_compression_equals_an_undisturbed_one(tmp_path: Path) -> None:
    undisturbed, continued = learner_of(ema_decay=0.9), learner_of(ema_decay=0.9)
    expected, _ = fit(undisturbed, COMPRESSED, taught=compressed_teaching())
    where = {"taught": compressed_teaching(), "checkpoint_dir": tmp_path}
    killed = learner_of(ema_decay=0.9)
    with pytest.raises(KilledError):
        fit(killed, COMPRESSED, progress=kill_after(3.5), **where)
    report, _ = fit(continued, COMPRESSED, taught=compressed_teaching(), checkpoint_dir=tmp_path)
    assert report.curve == expected.curve
    np.testing.assert_array_equal(
        continued.predict_logits(TABLE.valid), undisturbed.predict_logits(TABLE.valid)
    )


def test_a_rounding_student_is_judged_in_int8_and_left_in_float32(tmp_path: Path) -> None:
    """The AUC of its best epoch is that of the graph that is made of it."""
    learner = learner_of()
    taught = {"int8": compressed_teaching()["int8"]}
    report, _ = fit(learner, {"quantisation_aware": {"weight": 1.0}}, taught=taught)
    learner.export_onnx(tmp_path / "fp32.onnx")
    assert quantize_graph(tmp_path / "fp32.onnx", TABLE.train, tmp_path / "int8.onnx")
    logits = PoolScorer({n: tmp_path / f"{n}.onnx" for n in ("fp32", "int8")}).logits(TABLE.valid)
    kept = next(p.valid_logloss for p in report.curve if p.epoch == report.best_epoch)
    found = {n: logloss(TABLE.valid.labels, expit(z), None) for n, z in logits.items()}
    assert kept == pytest.approx(found["int8"], abs=1e-6)
    assert abs(kept - found["fp32"]) > 1e-5
    np.testing.assert_allclose(learner.predict_logits(TABLE.valid), logits["fp32"], atol=1e-5)


def test_inputs_are_rounded_in_the_second_half_of_training() -> None:
    rounds: list[bool] = []

    class Recording(DistillTrainer):
        def train_step(self, batch: TensorBatch) -> float:
            loss = super().train_step(batch)
            layer = self.network.head.mlp.layers[0]
            rounds.append(layer.rounds_inputs)
            return loss

    distill = DistillConfig(quantisation_aware=QuantisationAwareConfig(weight=1.0))
    int8 = compressed_teaching()["int8"]
    teaching = replace(teaching_of(DistillConfig(augmented_per_row=0)), int8=int8)
    learner_of(max_epochs=2).fit_with(
        lambda network, config: Recording(network, config, distill, teaching, 0),
        TABLE.train,
        TABLE.valid,
    )
    assert rounds == [False] * 10 + [True] * 10  # 600 rows in batches of 64


def test_the_whole_student_learns_beside_the_pruned_one() -> None:
    taught = compressed_teaching()
    whole = taught["unpruned"]
    before = whole.head.output.weight.clone()
    _, trainer = fit(learner_of(), COMPRESSED, taught={"unpruned": whole})
    assert trainer._modules.unpruned is whole
    assert not torch.equal(whole.head.output.weight, before)
    alone = {"pruning": {"share": 0.5, "mutual": 0}}
    _, trainer = fit(learner_of(max_epochs=1), alone, taught={"unpruned": whole})
    assert trainer._modules.unpruned is None
