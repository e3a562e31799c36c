"""Multi-teacher gating: weights of the teacher's members, learned, different for each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dynens.batch import EncodedBatch
from dynens.ensemble.blend import Blend, Logits
from dynens.ensemble.scorer import PoolScorer

# Weight of a member that the blend leaves out: small, but a gate can bring it back.
MIN_PRIOR = 0.01


@dataclass(frozen=True)
class Voices:
    """A blend as members that speak on one scale, and the weight each has in it.

    Attributes:
        members: one blend of a single learner each.
        prior: their weights, > 0, which sum to one; the prior-weighted sum of the members' logits
            is the whole blend's logit (but for members below `MIN_PRIOR`).
    """

    members: tuple[Blend, ...]
    prior: tuple[float, ...]

    def logits(self, logits: Mapping[str, Logits]) -> Logits:
        """(N, M) float32 logits of the members, from each named learner's raw logits (N,)."""
        return np.stack([member.logit(logits) for member in self.members], axis=1)


def voices_of(blend: Blend, calibrated: Mapping[str, Blend]) -> Voices:
    """Split a blend of calibrated learners into its voices.

    With `c_m = a_m z_m + b_m` the calibrated logits and `bias' + Σ v_m c_m` the blend, member m
    says `s c_m + bias'`, where `s = Σ v_m`, and has weight `v_m / s`.

    Args:
        blend: of learners' raw logits, no weight of it negative.
        calibrated: for each of them the single-learner blend that calibrates it.
    """
    share = {name: w / calibrated[name].weights[name] for name, w in blend.weights.items()}
    scale = sum(share.values())
    bias = blend.bias - sum(v * calibrated[name].bias for name, v in share.items())
    prior = np.maximum([v / scale for v in share.values()], MIN_PRIOR)
    members = tuple(calibrated[name].scaled(scale, bias) for name in share)
    return Voices(members, tuple(float(p) for p in prior / prior.sum()))


@dataclass(frozen=True)
class VoicesTeacher:
    """Labels made-up rows with every voice's logit instead of the blend's."""

    scorer: PoolScorer
    voices: Voices

    def logits(self, batch: EncodedBatch) -> Logits:
        """(B, M) float32."""
        return self.voices.logits(self.scorer.logits(batch))


class TeacherGate(nn.Module):
    """Weights of M members for every row: `w = softmax(b + U z + V h)`.

    z are the members' logits and h the student's features, normalised per row and cut off from the
    student's gradient. The gated teacher's logit is `Σ_m w_m z_m`; it takes the blend's place in
    every distillation loss. U and V start at zero and b at the log of the blend's own weights, so
    that training starts from the ungated teacher.

    The paper's gate is the softmax of an affine function of all teachers' outputs (our b and U),
    and is learned through the distillation loss, together with the student. Two things differ here.
    The gate also sees what the student knows of the row (V), as one teacher may be better on some
    kind of rows at equal outputs. And it is learned from how well the gated teacher predicts the
    click labels of logged rows (`gate_loss`): by the distillation loss alone it would prefer
    whichever teacher the student already resembles. Made-up rows have no label, so there the gate
    decides from z and h alone and learns nothing.

    The members saw the training rows' labels, so one that overfits them looks better here than it
    is; the start at the blend's weights, which were chosen on validation rows, is what holds
    against it.

    Args:
        feature_dim: H of the student.
        prior: (M,) weights > 0 that sum to one.

    References:
        Zhu et al., "Ensembled CTR Prediction via Knowledge Distillation", CIKM 2020
        (arXiv 2011.04106), teacher gating.
    """

    def __init__(self, feature_dim: int, prior: Sequence[float]) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.linear = nn.Linear(len(prior) + feature_dim, len(prior))
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.bias.copy_(torch.tensor(prior).log())

    def forward(self, voices: Tensor, features: Tensor) -> Tensor:
        """(B, M) logits, (B, H) → (B,) gated logits; no gradient reaches `features`."""
        return (self.weights(voices, features) * voices).sum(dim=1)

    def weights(self, voices: Tensor, features: Tensor) -> Tensor:
        """(B, M) logits, (B, H) → (B, M) weights > 0 that sum to one."""
        h = nn.functional.layer_norm(features.detach(), (self.feature_dim,))
        return torch.softmax(self.linear(torch.cat([voices, h], dim=1)), dim=1)
