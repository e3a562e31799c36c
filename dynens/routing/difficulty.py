"""Difficulty scores: small modules on top of the student, higher = harder.

Every score sees only what the student's own graph already holds: its logit, its last hidden
representation and how often the row's ids occurred in training. A score is made by one `fit`
function on rows that trained neither student nor members.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dynens.metrics import sigmoid
from dynens.models.optim import reproducible

Vector = npt.NDArray[np.floating]
NUM_RARITY = 2
HEAD_UNITS = 32
HEAD_STEPS = 800
HEAD_BATCH_ROWS = 1024
HEAD_LEARNING_RATE = 3e-3
HEAD_WEIGHT_DECAY = 1e-3


@dataclass(frozen=True)
class RouteRows:
    """What difficulty scores are fitted on; N rows.

    Attributes:
        labels: (N,) in {0, 1}.
        weight: (N,) row weights.
        student_logit: (N,) raw student logits.
        hidden: (N, H) the student's last hidden representation.
        rarity: (N, 2) mean and minimum over fields of log(1 + training frequency).
        easy_logit: (N,) calibrated logit of the student's route.
        hard_logit: (N,) calibrated logit of the ensemble's route.
        member_logits: (N, M) calibrated logits of the ensemble's members.
    """

    labels: Vector
    weight: Vector
    student_logit: Vector
    hidden: Vector
    rarity: Vector
    easy_logit: Vector
    hard_logit: Vector
    member_logits: Vector

    def take(self, index: npt.NDArray[np.bool_]) -> RouteRows:
        return RouteRows(**{name: value[index] for name, value in vars(self).items()})


class Difficulty(nn.Module, ABC):
    """(N,) student logit, (N, H) hidden, (N, 2) rarity → (N,) difficulty."""

    @abstractmethod
    def forward(self, logit: Tensor, hidden: Tensor, rarity: Tensor) -> Tensor:
        """The difficulties (N,)."""

    def score(self, rows: RouteRows) -> npt.NDArray[np.float32]:
        """(N,) difficulties of NumPy rows."""
        with torch.no_grad():
            tensors = (
                torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32))
                for a in (rows.student_logit, rows.hidden, rows.rarity)
            )
            return np.asarray(self(*tensors).numpy(), dtype=np.float32)


class Margin(Difficulty):
    """-|z|: nearness to p = ½, where |dp/dz| = p(1-p) is largest."""

    def forward(self, logit: Tensor, hidden: Tensor, rarity: Tensor) -> Tensor:
        return -logit.abs()


class Entropy(Difficulty):
    """H(σ(z)) in nats."""

    def forward(self, logit: Tensor, hidden: Tensor, rarity: Tensor) -> Tensor:
        p = torch.sigmoid(logit)
        return torch.nn.functional.softplus(logit) - p * logit


class Rarity(Difficulty):
    """-mean log(1 + training frequency): epistemic uncertainty from how little was seen."""

    def forward(self, logit: Tensor, hidden: Tensor, rarity: Tensor) -> Tensor:
        return -rarity[:, 0]


class PseudoRandom(Difficulty):
    """A fixed scramble of the logit: the control that carries no information."""

    def forward(self, logit: Tensor, hidden: Tensor, rarity: Tensor) -> Tensor:
        scrambled = torch.sin(logit * 12345.678) * 43758.547
        return scrambled - torch.floor(scrambled)


class PredictedTarget(Difficulty):
    """A one-layer perceptron on the student's last hidden layer that predicts a target.

    The logit is a linear function of that layer, so the perceptron knows it too; two small matrix
    products are all that a difficulty costs.
    """

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(hidden_dim, HEAD_UNITS), nn.ReLU(), nn.Linear(HEAD_UNITS, 1)
        )

    def absorb_scale(self, mean: Tensor, scale: Tensor) -> None:
        """Make layers fitted on (x - mean) · scale take x itself."""
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        with torch.no_grad():
            first.weight.mul_(scale)
            first.bias.sub_(first.weight @ mean)

    def forward(self, logit: Tensor, hidden: Tensor, rarity: Tensor) -> Tensor:
        predicted: Tensor = self.layers(hidden)
        return predicted.squeeze(1)


DifficultyFitter = Callable[[RouteRows, int], Difficulty]


def fit_predicted_gap(rows: RouteRows, seed: int) -> Difficulty:
    """Predicts |Δp|: how far the ensemble's probability will be from the student's."""
    gap = np.abs(sigmoid(rows.hard_logit) - sigmoid(rows.easy_logit))
    return _fit_head(rows, gap, seed)


def fit_predicted_auc_gain(rows: RouteRows, seed: int) -> Difficulty:
    """Predicts |Δp|·|Δrank|: what AUC gains by the row's move if the ensemble is right.

    The row is a positive with the ensemble's probability p. Moved past the rows between its two
    scores, it gains p minus their probability with each of them: half of Δp on average, times their
    number. Ranks are positions among the student's calibrated logits, scaled to [0, 1].
    """
    gap = np.abs(sigmoid(rows.hard_logit) - sigmoid(rows.easy_logit))
    reference = np.sort(rows.easy_logit)
    easy = np.searchsorted(reference, rows.easy_logit)
    hard = np.searchsorted(reference, rows.hard_logit)
    return _fit_head(rows, gap * np.abs(hard - easy) / len(reference), seed)


def fit_loss_reduction(rows: RouteRows, seed: int) -> Difficulty:
    """Predicts the student's logloss minus the ensemble's."""
    sign = 1 - 2 * rows.labels
    easy_loss = np.logaddexp(0.0, sign * rows.easy_logit)
    hard_loss = np.logaddexp(0.0, sign * rows.hard_logit)
    return _fit_head(rows, easy_loss - hard_loss, seed)


def fit_disagreement(rows: RouteRows, seed: int) -> Difficulty:
    """Predicts the standard deviation of the members' probabilities."""
    return _fit_head(rows, sigmoid(rows.member_logits).std(axis=1), seed)


DIFFICULTY: dict[str, DifficultyFitter] = {
    "margin": lambda rows, seed: Margin(),
    "entropy": lambda rows, seed: Entropy(),
    "predicted_auc_gain": fit_predicted_auc_gain,
    "predicted_gap": fit_predicted_gap,
    "loss_reduction": fit_loss_reduction,
    "disagreement": fit_disagreement,
    "rarity": lambda rows, seed: Rarity(),
    "random": lambda rows, seed: PseudoRandom(),
}


def _fit_head(rows: RouteRows, target: Vector, seed: int) -> Difficulty:
    """Minimise the weighted squared error of the standardised target; seeded, on one thread (more
    of them would wait for one another through every small step)."""
    with reproducible(seed, 1):
        hidden = torch.from_numpy(np.ascontiguousarray(rows.hidden, dtype=np.float32))
        mean, scale = hidden.mean(dim=0), 1.0 / hidden.std(dim=0).clamp(min=1e-3)
        inputs = (hidden - mean) * scale
        wanted = torch.from_numpy((target / max(float(np.std(target)), 1e-6)).astype(np.float32))
        weight = torch.from_numpy(np.asarray(rows.weight, dtype=np.float32))
        head = PredictedTarget(hidden.shape[1])
        optimizer = torch.optim.AdamW(
            head.parameters(),
            lr=HEAD_LEARNING_RATE,
            weight_decay=HEAD_WEIGHT_DECAY,
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, HEAD_STEPS)
        for _ in range(HEAD_STEPS):
            index = torch.randint(len(wanted), (min(HEAD_BATCH_ROWS, len(wanted)),))
            error = head.layers(inputs[index]).squeeze(1) - wanted[index]
            loss = (weight[index] * error.square()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        head.absorb_scale(mean, scale)
    return head.eval()
