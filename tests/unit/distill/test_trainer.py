"""The student's training: its loss terms by hand, continuation, and what is not saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dynens.batch import EncodedBatch
from dynens.config.base import validate
from dynens.config.distill import DistillConfig
from dynens.config.learner import Device, LearnerConfig, OptimizerConfig
from dynens.distill.augment import row_space
from dynens.distill.hints import TeacherFeatures
from dynens.distill.teacher import RowFactory
from dynens.distill.terms import LOSS_TERMS
from dynens.distill.trainer import DistillTrainer, Teaching
from dynens.distill.views import Views
from dynens.distill.weakness import Weakness, row_divergence
from dynens.errors import ConfigError
from dynens.models.base import CurvePoint, FitProgress, FitReport
from dynens.models.batches import tensor_batch
from dynens.models.dnn import DNNLearner
from dynens.models.network import CTRNetwork
from dynens.models.training import CHECKPOINT
from tests.unit.distill.rows import missing_row
from tests.unit.models.tables import TinyTable, lookup, tiny_table

TABLE = tiny_table(rows=600)
PRIOR = (0.6, 0.4)
ITEMS = {"c0": "item", "c1": "item", "x0": "item"}
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


class KilledError(Exception):
    """Stands for the death of the worker."""


class TwoVoices:
    """Two teachers: one reads the dense columns, the other the first id."""

    def logits(self, batch: EncodedBatch) -> np.ndarray:
        return np.stack([batch.dense.sum(axis=1), batch.ids[:, 0] / 4 - 1], axis=1).astype("f4")


class OneVoice(TwoVoices):
    def logits(self, batch: EncodedBatch) -> np.ndarray:
        return super().logits(batch) @ np.array(PRIOR, np.float32)


class TableStats:
    def __init__(self, table: TinyTable) -> None:
        self.table = table

    def transform(self, ids: np.ndarray) -> np.ndarray:
        return lookup(self.table.layout, self.table.stats, ids)


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors are equal, NaN to NaN too."""
    return torch.equal(first.nan_to_num(-9), second.nan_to_num(-9))


def learner_of(device: Device = "cpu", **optimizer: object) -> DNNLearner:
    options = {"batch_size": 64, "learning_rate": 0.01, "max_epochs": 6, **optimizer}
    config = LearnerConfig(
        embedding_dim=4,
        hidden_units=(12, 8),
        device=device,
        optimizer=OptimizerConfig.model_validate(options),
    )
    return DNNLearner(config, TABLE.layout, TABLE.stats, 0)


def teaching_of(distill: DistillConfig) -> Teaching:
    labeller = TwoVoices() if distill.gating else OneVoice()
    counts = np.ones(sum(1 + field.num_embeddings for field in TABLE.layout.fields), np.int64)
    space = row_space(TABLE.layout, {}, counts, missing_row(TABLE.layout))
    valid_logits = OneVoice().logits(TABLE.valid) if distill.follow_weakness else None
    weakness = None
    if valid_logits is not None:
        weakness = Weakness(TABLE.layout, TABLE.valid, valid_logits, TABLE.train)
    factory = RowFactory(
        labeller, TABLE.train, TableStats(TABLE), space, distill, seed=0, weakness=weakness
    )
    features = None
    if distill.needs_teacher_features:
        teacher = learner_of(max_epochs=1)
        teacher.fit(TABLE.train, TABLE.valid)
        features = TeacherFeatures(teacher.networks_[0], TABLE.train)
    return Teaching(
        labeller.logits(TABLE.train),
        factory if distill.makes_rows else None,
        PRIOR if distill.gating else (),
        features,
        valid_logits,
        views=Views.of(row_space(TABLE.layout, ITEMS, counts, missing_row(TABLE.layout)), ["c0"]),
    )


def fit(
    learner: DNNLearner,
    settings: Mapping[str, object],
    train: EncodedBatch = TABLE.train,
    **where: object,
) -> tuple[FitReport, DistillTrainer]:
    distill = validate(DistillConfig, dict(settings), "test")
    teaching = teaching_of(distill)
    made: list[DistillTrainer] = []

    def trainer(network: CTRNetwork, config: LearnerConfig) -> DistillTrainer:
        made.append(DistillTrainer(network, config, distill, teaching, 0, **where))  # type: ignore[arg-type]
        return made[0]

    return learner.fit_with(trainer, train, TABLE.valid), made[0]


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}])
def test_continued_run_equals_undisturbed_run(tmp_path: Path, options: dict[str, object]) -> None:
    def kill_in_fourth_epoch(progress: FitProgress) -> None:
        if progress.point.epoch > 3.5:
            raise KilledError

    undisturbed = learner_of(**options)
    expected, whole = fit(undisturbed, EVERYTHING)
    with pytest.raises(KilledError):
        fit(
            learner_of(**options),
            EVERYTHING,
            checkpoint_dir=tmp_path,
            progress=kill_in_fourth_epoch,
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
    def kill_in_fourth_epoch(progress: FitProgress) -> None:
        if progress.point.epoch > 3.5:
            raise KilledError

    plain, expected = learner_of(), learner_of("cuda")
    reports = [fit(learner, EVERYTHING)[0] for learner in (plain, expected)]
    with pytest.raises(KilledError):
        fit(
            learner_of("cuda"),
            EVERYTHING,
            checkpoint_dir=tmp_path,
            progress=kill_in_fourth_epoch,
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


def test_the_epoch_nearest_to_the_teacher_is_kept_whatever_the_labels_say() -> None:
    teaching = replace(
        teaching_of(DistillConfig(augmented_per_row=0)),
        valid_logits=OneVoice().logits(TABLE.valid),
    )
    upside_down = replace(TABLE.valid, labels=1 - TABLE.valid.labels)  # AUC would keep epoch 1
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
    kept = -np.sqrt(left.mean())
    assert report.best_epoch > 1
    assert kept == pytest.approx(max(scores), rel=1e-3)
