"""The student's training: its loss terms by hand, continuation, and what is not saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dynens.config.distill import DistillConfig
from dynens.distill.terms import LOSS_TERMS
from dynens.distill.trainer import DistillTrainer
from dynens.distill.weakness import row_divergence
from dynens.errors import ConfigError
from dynens.models.base import CurvePoint
from dynens.models.batches import tensor_batch
from dynens.models.checkpoints import CHECKPOINT
from dynens.models.dnn import DNNLearner
from tests.unit.distill.students import (
    PRIOR,
    TABLE,
    OneVoice,
    fit,
    learner_of,
    teaching_of,
)
from tests.unit.killed import KilledError, kill_after

EVERYTHING = {
    "follow_weakness": True,
    "hints": {"weight": 0.5, "depths": "all", "noise": 0.2},
    "exits": 0.5,
    "gating": True,
    "relations": 1.0,
    "ema": 0.5,
    "memory": {"weight": 0.5, "beta": 0.5},
    "peers": {"count": 2},
    "temperature": {"kind": "adaptive", "start": 2},
    "views": 0.5,
    "mixup": {"weight": 0.5, "beta": 0.4},
    "guard": 0.5,
}


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors are equal, NaN to NaN too."""
    return torch.equal(first.nan_to_num(-9), second.nan_to_num(-9))


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}])
def test_continued_run_equals_undisturbed_run(tmp_path: Path, options: dict[str, object]) -> None:
    undisturbed = learner_of(**options)
    expected, whole = fit(undisturbed, EVERYTHING)
    with pytest.raises(KilledError):
        fit(
            learner_of(**options),
            EVERYTHING,
            checkpoint_dir=tmp_path,
            progress=kill_after(3.5),
        )
    continued = learner_of(**options)
    report, second = fit(continued, EVERYTHING, checkpoint_dir=tmp_path)
    assert report.curve == expected.curve
    np.testing.assert_array_equal(
        continued.predict_logits(TABLE.valid), undisturbed.predict_logits(TABLE.valid)
    )
    learned, again = whole.extra_state(), second.extra_state()
    kinds = {name.split(".")[0] for name in learned}
    assert kinds == {"adapters", "balance", "exits", "gate", "memory", "peers", "weakness"}
    assert all(same(learned[name], again[name]) for name in learned)
    assert not learned["memory.answers"].isnan().any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU")
def test_every_term_works_on_a_gpu(tmp_path: Path) -> None:
    plain, expected = learner_of(), learner_of("cuda")
    reports = [fit(learner, EVERYTHING)[0] for learner in (plain, expected)]
    with pytest.raises(KilledError):
        fit(
            learner_of("cuda"),
            EVERYTHING,
            checkpoint_dir=tmp_path,
            progress=kill_after(3.5),
        )
    continued = learner_of("cuda")
    fit(continued, EVERYTHING, checkpoint_dir=tmp_path)
    # Dropout and the order of sums differ.
    assert reports[1].best_auc == pytest.approx(reports[0].best_auc, abs=0.02)
    logits = [x.predict_logits(TABLE.valid) for x in (plain, expected, continued)]
    assert np.corrcoef(logits).min() > 0.97


def test_what_terms_learn_is_checkpointed_and_not_saved(tmp_path: Path) -> None:
    plain, taught = learner_of(max_epochs=2), learner_of(max_epochs=2)
    fit(plain, {})
    _, trainer = fit(taught, EVERYTHING, checkpoint_dir=tmp_path)
    kept = torch.load(tmp_path / CHECKPOINT, weights_only=True)["extra"]
    assert all(same(kept[name], value) for name, value in trainer.extra_state().items())
    assert not torch.equal(kept["gate.linear.bias"], torch.tensor(PRIOR).log())
    for learner, folder in ((plain, "plain"), (taught, "taught")):
        learner.save(tmp_path / folder)
    shapes = []
    for folder in ("plain", "taught"):
        with np.load(tmp_path / folder / "weights.npz") as arrays:
            shapes.append({name: arrays[name].shape for name in arrays.files})
    assert shapes[0] == shapes[1]


def test_soft_labels_of_the_table_draw_the_student_where_there_are_any() -> None:
    another = TABLE.train.dense[:, 0]  # neither the labels nor the teacher say this
    soft = (1 / (1 + np.exp(-another))).astype(np.float32)
    soft[::2] = np.nan
    train = replace(TABLE.train, soft_labels=soft)
    agreement = []
    for weight in (0.0, 20.0):
        learner = learner_of()
        fit(learner, {"soft_label": weight}, train)
        agreement.append(np.corrcoef(learner.predict_logits(TABLE.valid), TABLE.valid.dense[:, 0]))
    assert agreement[1][0, 1] > agreement[0][0, 1] + 0.1


def test_hints_bring_the_features_nearer_to_the_teachers() -> None:
    distances = []
    for epochs in (1, 6):
        _, trainer = fit(learner_of(max_epochs=epochs), {"hints": {"weight": 1.0}})
        batch = tensor_batch(TABLE.train, np.arange(600))
        distances.append(LOSS_TERMS["hints"].loss(trainer._step(batch, None)).item())
    assert distances[1] < distances[0] < 1.5


@pytest.mark.parametrize("name", ["relations", "ema"])
def test_a_term_comes_down_when_it_is_learned(name: str) -> None:
    """The same student with the term and without it, on the same rows."""
    left = []
    for weight in (0.0, 20.0):
        _, trainer = fit(learner_of(max_epochs=4), {name: weight or 1e-9})
        batch = tensor_batch(TABLE.train, np.arange(600))
        left.append(LOSS_TERMS[name].loss(trainer._step(batch, None)).item())
    assert left[1] < 0.9 * left[0]


def test_the_average_teaches_as_it_was_before_the_step() -> None:
    _, trainer = fit(learner_of(max_epochs=2, ema_decay=0.9, precision="fp32"), {"ema": 0.5})
    batch = tensor_batch(TABLE.train, np.arange(64))
    step = trainer._step(batch, None)
    assert trainer.average is not None
    step.logits.sum().backward()  # the swap of weights has not disturbed the student's graph
    trainer.network.eval()
    with trainer.average.applied(), torch.no_grad():
        expected = trainer.network(batch.dense, batch.ids, batch.stats)
    torch.testing.assert_close(step.average, expected)
    assert not torch.equal(step.average, step.logits.detach())


def test_exits_need_a_layer_below_the_last() -> None:
    learner = learner_of()
    learner.config = learner.config.model_copy(update={"hidden_units": (8,)})
    with pytest.raises(ConfigError, match="the student has a single hidden layer"):
        fit(learner, {"exits": 0.5})


@pytest.mark.parametrize(("depths", "widths"), [("last", [(8, 8)]), ("all", [(12, 12), (8, 8)])])
def test_hints_pair_layers_from_the_last_one_down(
    depths: str, widths: list[tuple[int, int]]
) -> None:
    _, trainer = fit(learner_of(max_epochs=1), {"hints": {"weight": 1.0, "depths": depths}})
    adapters = [adapter.linear for adapter in trainer._modules.adapters]
    assert [(a.in_features, a.out_features) for a in adapters] == widths
    step = trainer._step(tensor_batch(TABLE.train, np.arange(50)), None)
    assert step.hints is not None
    hints = step.hints(step.batch)[-len(adapters) :]
    by_hand = [
        (hint - adapter(own.float())).square().mean().item()
        for adapter, own, hint in zip(adapters, step.hidden[-len(adapters) :], hints, strict=True)
    ]
    assert LOSS_TERMS["hints"].loss(step).item() == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_noised_hints_are_of_the_rows_that_the_student_sees() -> None:
    settings = {"hints": {"weight": 1.0, "noise": 0.5}}
    _, trainer = fit(learner_of(max_epochs=1, precision="fp32"), settings)
    step = trainer._step(tensor_batch(TABLE.train, np.arange(50)), None)
    assert step.noised is not None
    assert step.hints is not None
    rows, hidden = step.noised
    assert not torch.equal(rows.ids, step.batch.ids)
    (adapter,) = trainer._modules.adapters
    expected = (step.hints(rows)[-1] - adapter(hidden[-1].float())).square().mean().item()
    assert LOSS_TERMS["hints"].loss(step).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [{}, {"diversity": 0.5, "mutual": 0.5}])
def test_a_branched_student_learns_and_is_continued(tmp_path: Path, loss: dict[str, float]) -> None:
    learner = learner_of(max_epochs=4)
    learner.config = learner.config.model_copy(update={"branches": 3})
    report, _ = fit(learner, loss)
    assert report.curve[-1].valid_auc > report.curve[0].valid_auc
    learner.save(tmp_path)
    again = DNNLearner.load(tmp_path)
    np.testing.assert_array_equal(
        again.predict_logits(TABLE.valid), learner.predict_logits(TABLE.valid)
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_the_epoch_nearest_to_the_teacher_is_kept_whatever_the_labels_say(weighted: bool) -> None:
    teaching = replace(
        teaching_of(DistillConfig(augmented_per_row=0)),
        valid_logits=OneVoice().logits(TABLE.valid),
    )
    weight = np.where(np.arange(len(TABLE.valid)) < 9, 50, 1).astype(np.float32)
    upside_down = replace(  # AUC would keep epoch 1
        TABLE.valid,
        labels=1 - TABLE.valid.labels,
        sample_weight=weight if weighted else None,
    )
    scores: list[float] = []

    class Recording(DistillTrainer):
        def score(self, point: CurvePoint, logits: np.ndarray) -> float:
            scores.append(super().score(point, logits))
            return scores[-1]

    learner = learner_of()
    report = learner.fit_with(
        lambda network, config: Recording(network, config, DistillConfig(), teaching, 0),
        TABLE.train,
        upside_down,
    )
    left = row_divergence(teaching.valid_logits, learner.predict_logits(TABLE.valid))
    kept = -np.sqrt(np.average(left, weights=upside_down.sample_weight))
    assert report.best_epoch > 1
    assert kept == pytest.approx(max(scores), rel=1e-3)
