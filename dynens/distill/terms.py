"""The terms of the student's loss: a new one is one function and one line in `LOSS_TERMS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dynens.config.distill import DistillConfig
from dynens.distill.hints import hint_distance
from dynens.distill.losses import probability_kl, response_loss, teacher_trust, weighted_mean
from dynens.distill.relations import RELATION_ROWS, relations
from dynens.distill.step import Step
from dynens.models.network import HeadInputs
from dynens.models.optim import autocast
from dynens.models.training import mean_over_branches, weighted_bce


def response(step: Step) -> Tensor:
    """Soft and hard labels, with the soft one's share guarded where the configuration asks.

    Every branch has this loss of its own, unless the configuration asks for that of the average.
    """
    alpha: float | Tensor = step.alpha
    guard = step.config.guard
    if guard > 0:
        alpha = alpha * teacher_trust(step.teacher, step.labels, step.base_logit, guard)

    def loss(logits: Tensor) -> Tensor:
        return _response_to(step.teacher, logits, step, alpha)

    if step.config.branch_loss == "average":
        return loss(step.logits)
    return mean_over_branches(step.branches, loss)


def _response_to(
    teacher: Tensor, logits: Tensor, step: Step, alpha: float | Tensor | None = None
) -> Tensor:
    """The response loss of (R,) logits to a teacher's (R,)."""
    return response_loss(
        logits,
        teacher,
        step.labels,
        step.has_label,
        step.weight,
        alpha=step.alpha if alpha is None else alpha,
        temperature=step.temperature,
    )


def soft_label_loss(step: Step) -> Tensor:
    """KL of the student to the soft labels that the table brings, on the logged rows that have one.

    With an earlier run's answers this is continual distillation: the student learns the new rows
    and keeps what its predecessor knew. With the mean of other sites' answers on rows that all of
    them may see, it is federated distillation: no site shows its own rows.

    References:
        Wang et al., "A Practical Incremental Method to Train Deep CTR Models", arXiv 2009.02147,
        section 3.3 (knowledge distillation from the last model); Lin et al., "Ensemble Distillation
        for Robust Model Fusion in Federated Learning", NeurIPS 2020.
    """
    soft = step.batch.soft_labels
    return step.logits.new_zeros(()) if soft is None else _distance_to(soft, step)


def _distance_to(known: Tensor, step: Step) -> Tensor:
    """KL of the student to probabilities (B,) of the logged rows, nothing where they are NaN."""
    rows = len(step.batch)
    distance = probability_kl(step.logits[:rows], known.nan_to_num(0.5), 1.0)
    return weighted_mean(distance * ~known.isnan(), step.weight[:rows])


def diversity_loss(step: Step) -> Tensor:
    """Minus the variance of the branches' probabilities, a mean over rows.

    It rewards branches that differ, so that their mean averages out more; for squared errors the
    error of the mean is the mean error less exactly this variance.

    References:
        Krogh and Vedelsby, "Neural Network Ensembles, Cross Validation, and Active Learning",
        NIPS 1994 (the ambiguity); Liu and Yao, "Ensemble learning via negative correlation",
        Neural Networks 12, 1999 (as a term of the loss).
    """
    variance = torch.sigmoid(step.branches).var(dim=1, correction=0)
    return -weighted_mean(variance, step.weight)


def mutual_loss(step: Step) -> Tensor:
    """KL of every branch to each of the others, whose answers carry no gradient; mean over pairs.

    References:
        Zhang et al., "Deep Mutual Learning", CVPR 2018, eq. 2 and section 3.3; its peers share
        nothing, these share their embeddings and see the same batch at the same step.
    """
    answers = torch.sigmoid(step.branches.detach())
    size = step.branches.shape[1]
    pairs = [
        weighted_mean(probability_kl(step.branches[:, i], answers[:, j], 1.0), step.weight)
        for i in range(size)
        for j in range(size)
        if i != j
    ]
    return torch.stack(pairs).mean()


def peer_loss(step: Step) -> Tensor:
    """KL of the student to the mean of its peers' latest answers; see `dynens.distill.peers`."""
    peers = step.modules.peers
    assert peers is not None
    own = torch.sigmoid(step.logits[: len(step.batch)])
    return _distance_to(peers(torch.from_numpy(step.batch.index), own), step)


def gate_loss(step: Step) -> Tensor:
    """BCE of the gated teacher on logged rows: what the gate learns from."""
    assert step.gated is not None
    assert step.batch.labels is not None
    logged = step.gated[: len(step.batch)]
    return weighted_bce(logged, step.batch.labels, step.batch.sample_weight)


def hint_loss(step: Step) -> Tensor:
    """How far the adapted hidden layers are from the teacher's on logged rows, a mean over depths.

    The adapters pair the layers of both from the last one down.
    """
    assert step.hints is not None
    rows = len(step.batch)
    batch, hidden = step.noised or (step.batch, tuple(part[:rows] for part in step.hidden))
    adapters = step.modules.adapters
    depth = len(adapters)
    pairs = zip(adapters, hidden[-depth:], step.hints(batch)[-depth:], strict=True)
    distances = [hint_distance(adapter(own.float()), hint) for adapter, own, hint in pairs]
    return weighted_mean(torch.stack(distances).mean(dim=0), step.weight[:rows])


def exit_loss(step: Step) -> Tensor:
    """The response loss of an exit after each hidden layer but the last, the student its teacher.

    References:
        Zhang et al., "Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks
        via Self Distillation", ICCV 2019, eq. 2 and 3 (its hints between layers are left out).
    """
    teacher = step.logits.detach()
    losses = [
        _response_to(teacher, exit_(hidden.float()).squeeze(1), step)
        for exit_, hidden in zip(step.modules.exits, step.hidden[:-1], strict=True)
    ]
    return torch.stack(losses).mean()


def relation_loss(step: Step) -> Tensor:
    """How differently student and teacher network see which rows are alike; see `relations`."""
    assert step.hints is not None
    rows = min(len(step.batch), RELATION_ROWS)
    batch = step.batch.first(rows)
    return relations(step.features[:rows].float(), step.hints(batch)[-1])


def view_loss(step: Step) -> Tensor:
    """The response losses of both views of the logged rows, and how they agree; see
    `dynens.distill.views`."""
    balance = step.modules.balance
    assert balance is not None
    assert step.views is not None
    rows = len(step.batch)
    weight, teacher = step.weight[:rows], step.teacher[:rows]
    labels, has_label = step.labels[:rows], step.has_label[:rows]
    temperature = step.temperature
    if isinstance(temperature, Tensor):
        temperature = temperature[:rows]
    answers = [torch.sigmoid(view.detach()) for view in step.views]
    responses = [
        response_loss(
            view,
            teacher,
            labels,
            has_label,
            weight,
            alpha=step.alpha,
            temperature=temperature,
        )
        for view in step.views
    ]
    apart = [
        weighted_mean(probability_kl(view, other, 1.0), weight)
        for view, other in zip(step.views, reversed(answers), strict=True)
    ]
    total: Tensor = balance(torch.stack([*responses, torch.stack(apart).mean()]))
    return total


def ema_loss(step: Step) -> Tensor:
    """KL of the student to the moving average of its own weights, on every row.

    References:
        Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, with the KL
        divergence in place of the squared error.
    """
    assert step.average is not None
    target = torch.sigmoid(step.average)
    return weighted_mean(probability_kl(step.logits, target, 1.0), step.weight)


def memory_loss(step: Step) -> Tensor:
    """Squared distance to the memory of logged rows, which then takes in the new answers."""
    memory = step.modules.memory
    assert memory is not None
    rows = len(step.batch)
    distance = memory(torch.from_numpy(step.batch.index), torch.sigmoid(step.logits[:rows]))
    return weighted_mean(distance, step.weight[:rows])


def pruning_loss(step: Step) -> Tensor:
    """Mutual learning of the pruned student and the whole one: KL of each to the other's answers,
    which carry no gradient, and the whole one's own response loss. 0 before pruning.

    References:
        Zhang et al., "Deep Mutual Learning", CVPR 2018, section 3.1; its peers both start anew.
    """
    whole = step.unpruned
    if whole is None:
        return step.logits.new_zeros(())
    pairs = ((step.logits, whole), (whole, step.logits))
    apart = [probability_kl(own, torch.sigmoid(other.detach()), 1.0) for own, other in pairs]
    return weighted_mean(apart[0] + apart[1], step.weight) + _response_to(step.teacher, whole, step)


def quantisation_loss(step: Step) -> Tensor:
    """The quantisation error: KL of the rounding student to the float32 student that it was, on
    every row. 0 before it rounds.

    References:
        Polino et al., "Model compression via distillation and quantization", ICLR 2018, section 3
        (its teacher is a larger network; here, beside that one, the student's own float32 form).
    """
    if step.unrounded is None:
        return step.logits.new_zeros(())
    target = torch.sigmoid(step.unrounded)
    return weighted_mean(probability_kl(step.logits, target, 1.0), step.weight)


def mixup_loss(step: Step) -> Tensor:
    """KL of the student on mixed inputs to the mixed probabilities of the teacher.

    Every row i of the step, logged or made up, is mixed with a row j drawn without replacement:
    `x = λ x_i + (1-λ) x_j`, λ ~ Beta(β, β) for each row, on the head's inputs (the dense ones and
    the embeddings after the lookup, as ids themselves have nothing between them). No teacher can be
    asked about a mixed embedding: trees know no embeddings, and every network has its own. So the
    target is mixed as well, `λ p_t(x_i) + (1-λ) p_t(x_j)`, in probabilities at the temperature, as
    labels are in the paper. Click labels have no part in it.

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, eq. 1.
    """
    rows = len(step.logits)
    rng = np.random.default_rng([*step.seed, 0x313])
    beta = step.config.mixup.beta
    share = torch.from_numpy(rng.beta(beta, beta, rows).astype(np.float32)).to(step.logits.device)
    partner = torch.from_numpy(rng.permutation(rows))
    dense, embeddings = (_mixed(values, partner, share) for values in step.inputs.whole())
    probability = torch.sigmoid(step.teacher / step.temperature)
    target = _mixed(probability, partner, share)
    with autocast(step.precision, step.logits.device):
        logits = step.head(HeadInputs.of(dense, embeddings)).float()
    return weighted_mean(
        probability_kl(logits, target, step.temperature), _mixed(step.weight, partner, share)
    )


def _mixed(values: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """λ v_i + (1-λ) v_j for (R, …) values."""
    share = share.view(-1, *[1] * (values.ndim - 1))
    return share * values + (1 - share) * values[partner]


@dataclass(frozen=True)
class LossTerm:
    """A term of the student's loss.

    Attributes:
        weight: of the term under a configuration; 0 switches it off.
        loss: of a step, a scalar.
    """

    weight: Callable[[DistillConfig], float]
    loss: Callable[[Step], Tensor]


LOSS_TERMS: dict[str, LossTerm] = {
    "response": LossTerm(lambda config: 1.0, response),
    "soft_label": LossTerm(lambda config: config.soft_label, soft_label_loss),
    "gate": LossTerm(lambda config: float(config.gating), gate_loss),
    "hints": LossTerm(lambda config: config.hints.weight, hint_loss),
    "relations": LossTerm(lambda config: config.relations, relation_loss),
    "diversity": LossTerm(lambda config: config.diversity, diversity_loss),
    "mutual": LossTerm(lambda config: config.mutual, mutual_loss),
    "peers": LossTerm(lambda config: config.peers.weight * (config.peers.count > 1), peer_loss),
    "exits": LossTerm(lambda config: config.exits, exit_loss),
    "ema": LossTerm(lambda config: config.ema, ema_loss),
    "memory": LossTerm(lambda config: config.memory.weight, memory_loss),
    "views": LossTerm(lambda config: config.views, view_loss),
    "pruning": LossTerm(
        lambda config: config.pruning.mutual * (config.pruning.share > 0), pruning_loss
    ),
    "quantisation": LossTerm(lambda config: config.quantisation_aware.weight, quantisation_loss),
    "mixup": LossTerm(lambda config: config.mixup.weight, mixup_loss),
}


def active_terms(config: DistillConfig) -> list[tuple[float, LossTerm]]:
    """The terms that a configuration uses, with their weights."""
    weighted = [(term.weight(config), term) for term in LOSS_TERMS.values()]
    return [(weight, term) for weight, term in weighted if weight > 0]
