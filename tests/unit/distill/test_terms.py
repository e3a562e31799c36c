"""The terms of the student's loss, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit, rel_entr
from torch import nn

from dynens.batch import EncodedBatch
from dynens.config.base import validate
from dynens.config.distill import DistillConfig
from dynens.config.learner import LearnerConfig
from dynens.distill.memory import AnswerMemory
from dynens.distill.peers import PeerAnswers
from dynens.distill.relations import relations
from dynens.distill.step import Step, TermModules
from dynens.distill.terms import LOSS_TERMS, active_terms, mixup_loss, response
from dynens.distill.views import ViewBalance
from dynens.models.batches import tensor_batch
from dynens.models.lr import LRHead
from dynens.models.network import HeadInputs, HeadShape


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
        ({"peers": {"count": 2, "weight": 0.3}}, {"response": 1.0, "peers": 0.3}),
        ({"peers": {"weight": 0.3}}, {"response": 1.0}),
        ({"exits": 0.5}, {"response": 1.0, "exits": 0.5}),
        ({"views": 0.5}, {"response": 1.0, "views": 0.5}),
        ({"soft_label": 0.5}, {"response": 1.0, "soft_label": 0.5}),
        ({"pruning": {"share": 0.5, "mutual": 0.3}}, {"response": 1.0, "pruning": 0.3}),
        ({"pruning": {"mutual": 0.3}}, {"response": 1.0}),
        ({"quantisation_aware": {"weight": 2}}, {"response": 1.0, "quantisation": 2.0}),
    ],
)
def test_a_term_is_active_where_its_key_asks_for_it(
    settings: Mapping[str, object], active: dict[str, float]
) -> None:
    terms = active_terms(validate(DistillConfig, {"soft_label": 0, **settings}, "test"))
    assert terms == [(weight, LOSS_TERMS[name]) for name, weight in active.items()]


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


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.asarray(rel_entr(p, q) + rel_entr(1 - p, 1 - q))


def test_quantisation_error_is_the_kl_to_the_float32_students_answers() -> None:
    unrounded = torch.tensor([2.4, 0.1, -1.0])
    p, q = expit(unrounded.numpy()), expit(np.array([2.5, 0.0, -1.0]))
    expected = (np.array([2.0, 1.0, 1.5]) * kl(p, q)).sum() / 4.5
    found = LOSS_TERMS["quantisation"].loss(lr_step(unrounded=unrounded))
    assert found.item() == pytest.approx(expected, rel=1e-4)
    assert LOSS_TERMS["quantisation"].loss(lr_step()).item() == 0.0


def test_pruned_and_whole_student_teach_each_other_and_labels_teach_the_whole_one() -> None:
    """At T = 1: both KLs, and α·KL(teacher ‖ whole) + (1-α)·BCE on logged rows, KL on made-up."""
    whole = torch.tensor([1.0, -0.5, 0.5], requires_grad=True)
    own = torch.tensor([[2.5], [0.0], [-1.0]], requires_grad=True)
    step = lr_step(unpruned=whole, branches=own, temperature=1.0)
    found = LOSS_TERMS["pruning"].loss(step)
    p, q = expit(whole.detach().numpy()), expit(np.array([2.5, 0.0, -1.0]))
    t, y = expit(np.array([3.0, -1.0, 0.0])), np.array([1.0, 0.0])
    soft, hard = kl(t, p), -y * np.log(p[:2]) - (1 - y) * np.log(1 - p[:2])
    response = np.r_[0.5 * soft[:2] + 0.5 * hard, soft[2]]
    weight = np.array([2.0, 1.0, 1.5])
    expected = (weight * (kl(p, q) + kl(q, p) + response)).sum() / 4.5
    assert found.item() == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert own.grad is not None
    # Its gradient is that of KL(p ‖ q) alone: (q - p) weighted.
    np.testing.assert_allclose(own.grad[:, 0].numpy(), weight * (q - p) / 4.5, rtol=1e-4)
    assert LOSS_TERMS["pruning"].loss(lr_step()).item() == 0.0


def test_soft_labels_count_on_logged_rows_that_have_one() -> None:
    step = lr_step()
    soft = torch.tensor([0.9, torch.nan])
    found = LOSS_TERMS["soft_label"].loss(
        replace(step, batch=replace(step.batch, soft_labels=soft))
    )
    q = expit(2.5)
    divergence = 0.9 * np.log(0.9 / q) + 0.1 * np.log(0.1 / (1 - q))
    assert found.item() == pytest.approx(2.0 * divergence / 3.0, rel=1e-5)
    assert LOSS_TERMS["soft_label"].loss(step).item() == 0.0


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


def test_memory_by_hand() -> None:
    memory = AnswerMemory(4, beta=0.75)
    index = torch.tensor([2, 0])
    assert memory(index, torch.tensor([0.8, 0.1])).tolist() == [0.0, 0.0]  # the first visit
    second = memory(index, torch.tensor([0.4, 0.1]))
    assert second.tolist() == pytest.approx([0.16, 0.0])
    assert memory.answers[index].tolist() == pytest.approx([0.75 * 0.8 + 0.25 * 0.4, 0.1])
    assert memory.answers[[1, 3]].isnan().all()


def test_the_peers_term_by_hand() -> None:
    """One logged row has an answer of the peers, the other none yet."""
    peers = PeerAnswers(2)
    step = lr_step(modules=TermModules(peers=peers))
    peers.others[step.batch.index[0]] = 0.4
    own = torch.sigmoid(step.logits[0]).item()
    kl = float(rel_entr(0.4, own) + rel_entr(0.6, 1 - own))
    weight = step.weight[:2]
    expected = kl * (weight[0] / weight.sum()).item()
    assert LOSS_TERMS["peers"].loss(step).item() == pytest.approx(expected, rel=1e-5)
    remembered = peers.own[torch.from_numpy(step.batch.index)]
    assert remembered.tolist() == pytest.approx(torch.sigmoid(step.logits[:2]).tolist())


def test_views_by_hand() -> None:
    """Two response losses, those of students that answer as the views do, and their distance."""
    views = (torch.tensor([1.0, -0.5]), torch.tensor([0.0, 0.5]))
    step = lr_step(modules=TermModules(balance=ViewBalance()), views=views)
    weight = np.array([2.0, 1.0])
    expected = 0.0
    for view, other in (views, views[::-1]):
        padded = torch.cat([view, torch.zeros(1)]).unsqueeze(1)
        on_logged = {"weight": torch.tensor([2.0, 1.0, 0.0])}
        expected += response(lr_step(branches=padded, **on_logged)).item()
        p, q = expit(other.numpy()), expit(view.numpy())
        divergence = rel_entr(p, q) + rel_entr(1 - p, 1 - q)
        expected += 0.5 * (weight * divergence).sum() / 3.0
    assert LOSS_TERMS["views"].loss(step).item() == pytest.approx(expected, rel=1e-5)


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
