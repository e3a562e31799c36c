"""One step of the student as the terms of its loss see it, and what they learn beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from dynens.config.distill import DistillConfig
from dynens.config.learner import Precision
from dynens.distill.gating import TeacherGate
from dynens.distill.hints import HintAdapter, TeacherFeatures
from dynens.distill.memory import AnswerMemory
from dynens.distill.peers import PeerAnswers
from dynens.distill.views import ViewBalance
from dynens.models.batches import TensorBatch
from dynens.models.network import CTRNetwork, Head, HeadInputs


class TermModules(nn.Module):
    """What terms learn beside the student: checkpointed with it, no part of it afterwards."""

    def __init__(
        self,
        adapters: Sequence[HintAdapter] = (),
        gate: TeacherGate | None = None,
        memory: AnswerMemory | None = None,
        exits: Sequence[nn.Linear] = (),
        peers: PeerAnswers | None = None,
        balance: ViewBalance | None = None,
        unpruned: CTRNetwork | None = None,
    ) -> None:
        super().__init__()
        self.unpruned = unpruned
        self.adapters = nn.ModuleList(adapters)
        self.gate = gate
        self.memory = memory
        self.peers = peers
        self.balance = balance
        self.exits = nn.ModuleList(exits)


@dataclass(frozen=True)
class Step:
    """One step of the student as the loss terms see it: B logged rows, then made-up rows, R in all.

    Attributes:
        config: the distillation.
        batch: the logged rows.
        head: the student's head, for terms that ask it about other inputs.
        inputs: the head's inputs, dense (R, D) and embeddings (R, F, E).
        hidden: (R, H_k), the head's hidden layers from the input up, in the precision of the pass.
        branches: (R, K) float32 logits of the student's branches.
        teacher: (R,) logits of the teacher, without gradient.
        average: (R,) logits of the student's moving average, without gradient; None without it.
        gated: (R,) the teacher's with the gate's gradient; None without a gate.
        labels: (R,) in {0, 1}, 0 on made-up rows.
        has_label: (R,) 1 on logged rows, 0 on made-up ones.
        weight: (R,) row weights.
        alpha: the schedule's value.
        temperature: the schedule's value, or (R,) where every row has its own.
        base_logit: log-odds of the click rate.
        seed: (seed of the run, number of the step), for terms that draw.
        precision: arithmetic of the student's passes.
        modules: what terms learn.
        hints: the teacher network; None without hints.
        noised: logged rows with features missing and the student's hidden layers of them; None
            where hints ask for none.
        views: (B,) logits of the logged rows' content view and of their behaviour view.
        unpruned: (R,) logits of the student that this one was cut from, with its gradient.
        unrounded: (R,) logits of the float32 student that this INT8 one was, without gradient.
    """

    config: DistillConfig
    batch: TensorBatch
    head: Head
    inputs: HeadInputs
    hidden: tuple[Tensor, ...]
    branches: Tensor
    teacher: Tensor
    average: Tensor | None
    gated: Tensor | None
    labels: Tensor
    has_label: Tensor
    weight: Tensor
    alpha: float
    temperature: float | Tensor
    base_logit: float
    seed: tuple[int, int]
    precision: Precision
    modules: TermModules
    hints: TeacherFeatures | None
    noised: tuple[TensorBatch, tuple[Tensor, ...]] | None = None
    views: tuple[Tensor, Tensor] | None = None
    unpruned: Tensor | None = None
    unrounded: Tensor | None = None

    @property
    def features(self) -> Tensor:
        """(R, H): the last hidden layer."""
        return self.hidden[-1]

    @property
    def logits(self) -> Tensor:
        """(R,) float32 of the student: the mean of its branches."""
        return self.branches.mean(dim=1)
