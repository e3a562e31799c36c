"""The student's training: its loss terms by hand, continuation, and what is not saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, rel_entr
from torch import nn

from dynens.batch import EncodedBatch
from dynens.config.base import validate
from dynens.config.distill import DistillConfig
from dynens.config.learner import Device, LearnerConfig, OptimizerConfig
from dynens.distill.augment import row_space
from dynens.distill.hints import TeacherFeatures
from dynens.distill.memory import AnswerMemory
from dynens.distill.relations import relations
from dynens.distill.teacher import RowFactory
from dynens.distill.terms import LOSS_TERMS, Step, TermModules, active_terms, mixup_loss, response
from dynens.distill.trainer import DistillTrainer, Teaching
from dynens.distill.weakness import Weakness, row_divergence
from dynens.errors import ConfigError
from dynens.models.base import CurvePoint, FitProgress, FitReport
from dynens.models.batches import tensor_batch
from dynens.models.dnn import DNNLearner
from dynens.models.lr import LRHead
from dynens.models.network import CTRNetwork, HeadInputs, HeadShape
from dynens.models.training import CHECKPOINT
from tests.unit.models.tables import TinyTable, lookup, tiny_table

TABLE = tiny_table(rows=600)
PRIOR = (0.6, 0.4)
EVERYTHING = {
    "follow_weakness": True,
    "hints": {"weight": 0.5, "depths": "all", "noise": 0.2},
    "exits": 0.5,
    "gating": True,
    "relations": 1.0,
    "ema": 0.5,
    "memory": {"weight": 0.5, "beta": 0.5},
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
    space = row_space(TABLE.layout, {}, counts)
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
    )


def fit(
    learner: DNNLearner, settings: Mapping[str, object], **where: object
) -> tuple[FitReport, DistillTrainer]:
    distill = validate(DistillConfig, dict(settings), "test")
    teaching = teaching_of(distill)
    made: list[DistillTrainer] = []

    def trainer(network: CTRNetwork, config: LearnerConfig) -> DistillTrainer:
        made.append(DistillTrainer(network, config, distill, teaching, 0, **where))  # type: ignore[arg-type]
        return made[0]

    return learner.fit_with(trainer, TABLE.train, TABLE.valid), made[0]


@pytest.mark.parametrize(
    ("settings", "active"),
    [
        ({}, {"response": 1.0}),
        ({"gating": True}, {"response": 1.0, "gate": 1.0}),
        ({"hints": {"weight": 2.0}}, {"response": 1.0, "hints": 2.0}),
        ({"relations": 3.0}, {"response": 1.0, "relations": 3.0}),
        ({"ema": 0.5}, {"response": 1.0, "ema": 0.5}),
        ({"memory": {"weight": 0.5}}, {"response": 1.0, "memory": 0.5}),
        ({"mixup": {"weight": 0.5}}, {"response": 1.0, "mixup": 0.5}),
        ({"diversity": 0.5}, {"response": 1.0, "diversity": 0.5}),
        ({"mutual": 0.5}, {"response": 1.0, "mutual": 0.5}),
        ({"exits": 0.5}, {"response": 1.0, "exits": 0.5}),
    ],
)
def test_a_term_is_active_where_its_key_asks_for_it(
    settings: Mapping[str, object], active: dict[str, float]
) -> None:
    terms = active_terms(validate(DistillConfig, dict(settings), "test"))
    assert terms == [(weight, LOSS_TERMS[name]) for name, weight in active.items()]


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
    assert kinds == {"adapters", "exits", "gate", "memory", "weakness"}
    assert all(torch.equal(learned[name], again[name]) for name in learned)
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
    assert all(torch.equal(kept[name], value) for name, value in trainer.extra_state().items())
    assert not torch.equal(kept["gate.linear.bias"], torch.tensor(PRIOR).log())
    for learner, folder in ((plain, "plain"), (taught, "taught")):
        learner.save(tmp_path / folder)
    shapes = []
    for folder in ("plain", "taught"):
        with np.load(tmp_path / folder / "weights.npz") as arrays:
            shapes.append({name: arrays[name].shape for name in arrays.files})
    assert shapes[0] == shapes[1]


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


def lr_step(**changes: object) -> Step:
    """Three rows of a logistic regression on one dense input: logit 2x + e."""
    head = LRHead(HeadShape(1, 1, 1), LearnerConfig(model="lr"))
    with torch.no_grad():
        head.dense.weight.fill_(2.0)
    table = EncodedBatch(
        np.zeros((2, 1), np.float32),
        np.zeros((2, 1), np.int32),
        labels=np.array([1, 0], np.float32),
    )
    dense, embeddings = torch.tensor([[1.0], [0.0], [-1.0]]), torch.tensor([[[0.5]], [[0]], [[1]]])
    inputs = HeadInputs.of(dense, embeddings)
    step = Step(
        config=DistillConfig(),
        batch=tensor_batch(table, np.arange(2)),
        head=head,
        inputs=inputs,
        hidden=(head.features(inputs),),
        branches=head(inputs).detach().unsqueeze(1),
        teacher=torch.tensor([3.0, -1.0, 0.0]),
        average=None,
        gated=None,
        labels=torch.tensor([1.0, 0.0, 0.0]),
        has_label=torch.tensor([1.0, 1.0, 0.0]),
        weight=torch.tensor([2.0, 1.0, 1.5]),
        alpha=0.5,
        temperature=2.0,
        base_logit=-2.0,
        seed=(1, 7),
        precision="fp32",
        modules=TermModules(),
        hints=None,
    )
    return replace(step, **changes)  # type: ignore[arg-type]


def test_ema_is_the_kl_to_the_averages_answers() -> None:
    average = torch.tensor([1.0, -1.0, 0.5])
    p, q = expit(average.numpy()), expit(np.array([2.5, 0.0, -1.0]))
    divergence = rel_entr(p, q) + rel_entr(1 - p, 1 - q)
    expected = (np.array([2.0, 1.0, 1.5]) * divergence).sum() / 4.5
    found = LOSS_TERMS["ema"].loss(lr_step(average=average))
    assert found.item() == pytest.approx(expected, rel=1e-5)


BRANCHES = torch.tensor([[2.5, 1.5], [0.0, 1.0], [-1.0, -3.0]])


def test_every_branch_has_the_response_loss_of_its_own() -> None:
    alone = [response(lr_step(branches=BRANCHES[:, k : k + 1])).item() for k in range(2)]
    both = response(lr_step(branches=BRANCHES)).item()
    assert both == pytest.approx(np.mean(alone), rel=1e-6)
    average = response(lr_step(branches=BRANCHES.mean(dim=1, keepdim=True))).item()
    assert both > average
    config = DistillConfig(branch_loss="average")
    assert response(lr_step(branches=BRANCHES, config=config)).item() == pytest.approx(average)


def test_diversity_is_minus_the_variance_of_the_branches_answers() -> None:
    p = expit(BRANCHES.numpy())
    variance = (p[:, 0] - p[:, 1]) ** 2 / 4
    expected = -(np.array([2.0, 1.0, 1.5]) * variance).sum() / 4.5
    found = LOSS_TERMS["diversity"].loss(lr_step(branches=BRANCHES)).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_branches_teach_one_another_and_are_not_taught_by_themselves() -> None:
    branches = BRANCHES.clone().requires_grad_()
    p = expit(BRANCHES.numpy())
    weight = np.array([2.0, 1.0, 1.5])

    def divergence(teacher: np.ndarray, student: np.ndarray) -> float:
        kl = rel_entr(teacher, student) + rel_entr(1 - teacher, 1 - student)
        return float((weight * kl).sum() / 4.5)

    loss = LOSS_TERMS["mutual"].loss(lr_step(branches=branches))
    expected = (divergence(p[:, 1], p[:, 0]) + divergence(p[:, 0], p[:, 1])) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    # Only as a student: d KL(t ‖ σ(z)) / dz = σ(z) − t.
    assert branches.grad is not None
    by_hand = weight[:, None] * (p - p[:, ::-1]) / 4.5 / 2
    np.testing.assert_allclose(branches.grad.numpy(), by_hand, rtol=1e-4)


def test_exits_learn_from_the_last_layer_and_the_labels() -> None:
    first, second = torch.tensor([[1.0], [0.5], [-2.0]]), torch.tensor([[0.0, 1.0]]).repeat(3, 1)
    exits = [nn.Linear(1, 1), nn.Linear(2, 1)]
    with torch.no_grad():
        for exit_ in exits:
            exit_.weight.fill_(2.0)
            exit_.bias.fill_(-1.0)
    step = lr_step(hidden=(first, second, torch.zeros(3, 1)), modules=TermModules(exits=exits))
    at_first, at_second = torch.tensor([1.0, 0.0, -5.0]), torch.tensor([1.0, 1.0, 1.0])
    # What `response` says of a student that answers as the exit does, with this one as its teacher.
    expected = [
        response(lr_step(branches=z.unsqueeze(1), teacher=step.logits)).item()
        for z in (at_first, at_second)
    ]
    found = LOSS_TERMS["exits"].loss(step)
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-6)


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


def test_memory_by_hand() -> None:
    memory = AnswerMemory(4, beta=0.75)
    index = torch.tensor([2, 0])
    assert memory(index, torch.tensor([0.8, 0.1])).tolist() == [0.0, 0.0]  # the first visit
    second = memory(index, torch.tensor([0.4, 0.1]))
    assert second.tolist() == pytest.approx([0.16, 0.0])
    assert memory.answers[index].tolist() == pytest.approx([0.75 * 0.8 + 0.25 * 0.4, 0.1])
    assert memory.answers[[1, 3]].isnan().all()


def test_relations_by_hand() -> None:
    student = torch.tensor([[2.0, 0.0], [0.0, 3.0]])  # cosine 0
    teacher = torch.tensor([[1.0], [-5.0]])  # cosine -1
    assert relations(student, teacher).item() == pytest.approx((0 + 1 + 1 + 0) / 4)
    assert relations(7 * student, student).item() == pytest.approx(0.0, abs=1e-12)


def test_mixup_mixes_inputs_targets_and_weights_of_two_rows() -> None:
    config = validate(DistillConfig, {"mixup": {"weight": 1.0, "beta": 0.4}}, "test")
    step = lr_step(config=config)
    rng = np.random.default_rng([1, 7, 0x313])
    share, partner = rng.beta(0.4, 0.4, 3), rng.permutation(3)
    assert len(set(partner)) == 3
    x, e = np.array([1.0, 0.0, -1.0]), np.array([0.5, 0.0, 1.0])
    p, weight = expit(np.array([3.0, -1.0, 0.0]) / 2), np.array([2.0, 1.0, 1.5])

    def mixed(values: np.ndarray) -> np.ndarray:
        return share * values + (1 - share) * values[partner]

    target, q = mixed(p), expit((2 * mixed(x) + mixed(e)) / 2)
    divergence = 4 * (rel_entr(target, q) + rel_entr(1 - target, 1 - q))
    expected = (mixed(weight) * divergence).sum() / mixed(weight).sum()
    assert mixup_loss(step).item() == pytest.approx(expected, rel=1e-4)


def test_the_guard_moves_weight_from_the_soft_to_the_hard_label() -> None:
    """Row 1 has no click and a teacher above the click rate; the others are not guarded."""
    guarded = lr_step(config=DistillConfig(guard=1.0))
    trust = 1 - (2 * expit(1.0) - 1)
    logits, teacher = np.array([2.5, 0.0, -1.0]), np.array([3.0, -1.0, 0.0])
    p, q = expit(teacher / 2), expit(logits / 2)
    soft = 4 * (rel_entr(p, q) + rel_entr(1 - p, 1 - q))
    hard = np.array([np.log1p(np.exp(-2.5)), np.log(2.0), 0.0])
    share = np.array([0.5, 0.5 * trust, 1.0])
    expected = (np.array([2.0, 1.0, 1.5]) * (share * soft + (1 - share) * hard)).sum() / 4.5
    assert response(guarded).item() == pytest.approx(expected, rel=1e-4)
    assert response(lr_step()).item() != pytest.approx(expected, rel=1e-3)


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
