"""The trained student made smaller and ready for INT8."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dynens.config.base import validate
from dynens.config.distill import DistillConfig
from dynens.config.learner import LearnerConfig
from dynens.config.run import RunConfig
from dynens.distill.trainer import DistillTrainer, Teaching
from dynens.ensemble.scorer import PoolScorer
from dynens.models.base import FitProgress
from dynens.models.dnn import DNNLearner
from dynens.run import MODEL_ONNX, RunDirectory
from tests.unit.training.pool import SETTINGS, context_of
from training.context import StageContext
from training.student import StudentLearner


def compressing(
    run: RunDirectory, out: Path, student: Mapping[str, object], **distill: object
) -> tuple[StageContext, LearnerConfig]:
    """A stage whose student is compressed."""
    context = context_of(run, out, augmented_per_row=0)
    config = validate(
        RunConfig,
        {
            **SETTINGS,
            "ensemble": {"weight_methods": ["uniform"], "int8": "auto"},
            "student": {**SETTINGS["student"], **student},
            "distill": {"faithful": {"below": 0}, "augmented_per_row": 0, **distill},
        },
        "test",
    )
    return replace(context, config=config), config.student


@pytest.mark.parametrize("criterion", ["taylor", "magnitude"])
@pytest.mark.parametrize("gating", [True, False])
def test_a_pruned_student_is_narrower_and_nearly_as_good(
    run: RunDirectory, tmp_path: Path, criterion: str, gating: bool
) -> None:
    pruning = {"share": 0.5, "criterion": criterion, "epochs": 2, "learning_rate": 0.01}
    pruning |= {"mutual": 0.5}
    progress: list[FitProgress] = []
    student = {"hidden_units": [16, 8]}
    context, config = compressing(run, tmp_path, student, pruning=pruning, gating=gating)
    context = replace(context, progress=progress.append)
    learner = StudentLearner(context, config).fit()
    assert learner.config.hidden_units == (8, 4)
    learner.save(tmp_path)
    learner.export_onnx(tmp_path / MODEL_ONNX)
    valid = context.prepared().split("valid")
    logits = DNNLearner.load(tmp_path).predict_logits(valid)
    exported = PoolScorer({"student": tmp_path / MODEL_ONNX}).logits(valid)["student"]
    np.testing.assert_allclose(exported, logits, atol=1e-5)
    report = json.loads((tmp_path / "fit.json").read_text())
    assert list(report["compression"]) == ["pruning"]
    pruned = report["compression"]["pruning"]
    assert [point["epoch"] for point in pruned["curve"]] == [1.0, 2.0]
    assert pruned["best_auc"] > report["best_auc"] - 0.02
    assert (tmp_path / "checkpoints" / "pruning" / "checkpoint.pt").is_file()
    assert [at.fraction for at in progress] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_a_pruned_student_is_then_made_ready_for_int8(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trainer starts from what the one before left, and temperatures stay where they ended."""
    trained: list[tuple[tuple[int, ...], DistillConfig, Teaching]] = []

    class Recording(DistillTrainer):
        def __init__(self, network, config, distill, teaching, *rest) -> None:  # type: ignore[no-untyped-def]
            trained.append((network.hidden_dims, distill, teaching))
            if teaching.int8 is not None:
                start = network.state_dict().items()
                assert all(
                    torch.equal(v, teaching.int8.unrounded.state_dict()[n]) for n, v in start
                )
            super().__init__(network, config, distill, teaching, *rest)

    monkeypatch.setattr("training.student.DistillTrainer", Recording)
    monkeypatch.setattr("training.compression.DistillTrainer", Recording)
    context, config = compressing(
        run,
        tmp_path,
        {"hidden_units": [32, 16]},
        pruning={"share": 0.5, "epochs": 1, "mutual": 0},
        quantisation_aware={"weight": 1.0, "epochs": 2},
        temperature={"kind": "linear", "start": 5, "end": 2},
    )
    learner = StudentLearner(context, config).fit()
    assert learner.config.hidden_units == (16, 8)
    (first, taught, _), (second, recovered, cut), (third, rounded, into) = trained
    assert (first, second, third) == ((32, 16), (16, 8), (16, 8))
    assert taught.temperature.start == 5
    assert recovered.temperature == rounded.temperature
    assert (rounded.temperature.kind, rounded.temperature.start) == ("constant", 2.0)
    assert cut.unpruned is not None
    assert cut.int8 is None
    assert into.unpruned is None
    assert into.int8 is not None
    assert into.int8.unrounded.hidden_dims == (16, 8)
    assert len(into.int8.calibration) == len(context.prepared().split("train"))
    report = json.loads((tmp_path / "fit.json").read_text())
    assert list(report["compression"]) == ["pruning", "quantisation"]
