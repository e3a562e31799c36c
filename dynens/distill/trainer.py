"""Training the student: the learners' loop with the teacher's voice in every step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dynens.batch import EncodedBatch, FloatArray
from dynens.config.distill import DistillConfig
from dynens.config.learner import LearnerConfig
from dynens.distill.gating import TeacherGate
from dynens.distill.hints import HintAdapter, TeacherFeatures, masked
from dynens.distill.memory import AnswerMemory
from dynens.distill.peers import Exchange, PeerAnswers
from dynens.distill.schedules import adaptive_temperature, schedule_value
from dynens.distill.step import Step, TermModules
from dynens.distill.teacher import LabelledRows, RowFactory
from dynens.distill.terms import active_terms
from dynens.distill.views import ViewBalance, Views
from dynens.distill.weakness import Weakness, row_divergence
from dynens.ensemble.blend import Logits
from dynens.errors import ConfigError
from dynens.models.base import PLAINLY, CurvePoint, FitOptions, FitReport, positive_rate
from dynens.models.batches import TensorBatch
from dynens.models.fake_quantize import Int8Simulation
from dynens.models.network import CTRNetwork, HeadInputs
from dynens.models.optim import WeightAverage, autocast
from dynens.models.training import Trainer

# Of the moving average that teaches, where the student's own settings keep none.
EMA_DECAY = 0.99
_WEAKNESS = "weakness."
# Ranges of simulated INT8 inputs are taken anew after so many steps.
_STEPS_PER_CALIBRATION = 50


@dataclass(frozen=True)
class Int8Teaching:
    """A student's way into INT8.

    Attributes:
        unrounded: the float32 student that it was.
        calibration: rows that set the ranges of inputs.
    """

    unrounded: CTRNetwork
    calibration: EncodedBatch


@dataclass(frozen=True)
class Teaching:
    """What the student is taught from.

    Attributes:
        logits: the teacher's logits of the training rows: (N,), or (N, M) of its M members when
            the distillation gates them.
        factory: source of made-up rows, labelled alike; None for none.
        prior: (M,) weights the gate starts from; empty: no gate.
        features: the network that gives hints; None for none.
        valid_logits: the teacher's logits of the rows that decide when to stop, (V,); None: their
            labels decide.
        peers: where the student meets its peers; None for none.
        views: the two views of items; None for none.
        unpruned: the student that this one was cut from and learns beside; None for none.
        int8: what training in the arithmetic of INT8 takes; None: the student does not round.
    """

    logits: Logits
    factory: RowFactory | None = None
    prior: tuple[float, ...] = ()
    features: TeacherFeatures | None = None
    valid_logits: Logits | None = None
    peers: Exchange | None = None
    views: Views | None = None
    unpruned: CTRNetwork | None = None
    int8: Int8Teaching | None = None


class DistillTrainer(Trainer):
    """Trains a student on logged rows with soft labels and on rows made up for the teacher.

    Its loss is the weighted sum of the active `LOSS_TERMS`. What terms learn is stepped by the
    student's optimiser and checkpointed with it. It keeps its state when the student goes back to
    its best weights, and no average of it is kept.

    Args:
        network: the student.
        config: the student's resolved learner configuration.
        distill: the distillation.
        teaching: what it teaches from.
        seed, how: as for `Trainer`.
    """

    def __init__(
        self,
        network: CTRNetwork,
        config: LearnerConfig,
        distill: DistillConfig,
        teaching: Teaching,
        seed: int,
        how: FitOptions = PLAINLY,
    ) -> None:
        super().__init__(network, config, seed, how)
        self._distill = distill
        self._teaching = teaching
        self._teacher_logits = torch.from_numpy(np.asarray(teaching.logits, dtype=np.float32))
        if teaching.features is not None:
            teaching.features.to(self.device)
        self._int8: Int8Simulation | None = None
        if teaching.int8 is not None:
            teaching.int8.unrounded.to(self.device).eval()
            self._int8 = Int8Simulation(network, teaching.int8.calibration)
        self._terms = active_terms(distill)
        self._modules = self._term_modules().to(self.device)
        learned = list(self._modules.parameters())
        if learned:
            self.optimizer.add_param_group({"params": learned, "weight_decay": 0.0})
        if distill.ema > 0 and self.average is None:
            self.average = WeightAverage(network, EMA_DECAY)
        self._made: Iterator[LabelledRows] | None = None
        self._steps_per_epoch = 1
        self._base_logit = 0.0
        self._valid_weight: FloatArray | None = None

    def _term_modules(self) -> TermModules:
        teaching, distill = self._teaching, self._distill
        *below, last = self.network.hidden_dims
        adapters: list[HintAdapter] = []
        if teaching.features is not None and distill.hints.weight > 0:
            pairs = zip((last, *reversed(below)), reversed(teaching.features.dims), strict=False)
            adapters = [HintAdapter(own, other) for own, other in pairs][::-1]
            adapters = adapters if distill.hints.depths == "all" else adapters[-1:]
        gate = memory = peers = None
        if teaching.prior:
            gate = TeacherGate(last, teaching.prior)
        if distill.memory.weight > 0:
            memory = AnswerMemory(len(teaching.logits), distill.memory.beta)
        if distill.peers.count > 1:
            peers = PeerAnswers(len(teaching.logits))
        exits: list[nn.Linear] = []
        if distill.exits > 0:
            if not below:
                raise ConfigError(
                    f"distill.exits is {distill.exits} but the student has a single hidden layer, "
                    "so nothing lies below its last; give student.hidden_units two or more."
                )
            exits = [nn.Linear(width, 1) for width in below]
        balance = ViewBalance() if distill.views > 0 else None
        unpruned = teaching.unpruned if distill.pruning.mutual > 0 else None
        return TermModules(adapters, gate, memory, exits, peers, balance, unpruned)

    def fit(self, train: EncodedBatch, valid: EncodedBatch) -> FitReport:
        self._steps_per_epoch = max(-(-len(train) // self.batch_size), 1)
        assert train.labels is not None
        rate = positive_rate(train.labels, train.sample_weight)
        self._base_logit = float(np.log(rate / (1 - rate)))
        self._valid_weight = valid.sample_weight
        rounding = contextlib.nullcontext() if self._int8 is None else self._int8.installed()
        try:
            with rounding:
                return super().fit(train, valid)
        finally:
            close = getattr(self._made, "close", None)
            if close is not None:
                close()

    def validate(self, valid: EncodedBatch) -> FloatArray:
        """Logits of the student as it will be served: in INT8 where it rounds."""
        if self._int8 is not None:
            self._int8.calibrate()
        return super().validate(valid)

    def end_of_epoch(self) -> None:
        if self._modules.balance is not None:
            self._modules.balance.end_epoch()
        peers, exchange = self._modules.peers, self._teaching.peers
        if peers is not None and exchange is not None and not self.state.finished:
            peers.swap(exchange, self.state.epoch)

    def loss(self, batch: TensorBatch) -> Tensor:
        if self._int8 is not None:
            self._prepare_int8(self._int8)
        step = self._step(batch, self._made_rows())
        return torch.stack([weight * term.loss(step) for weight, term in self._terms]).sum()

    def _prepare_int8(self, simulation: Int8Simulation) -> None:
        """Ranges of the weights as they are; inputs are rounded in the second half of training.

        References:
            Zhuang et al., "Towards Effective Low-bitwidth Convolutional Neural Networks", CVPR
            2018 (its two stages: weights first).
        """
        if self.state.step % self._steps_per_epoch % _STEPS_PER_CALIBRATION == 0:
            simulation.calibrate()
        steps = self._steps_per_epoch * self.options.max_epochs
        simulation.round_inputs(2 * self.state.step >= steps)

    def score(self, point: CurvePoint, logits: FloatArray) -> float:
        """Minus the distance to the teacher, √(weighted mean of KL(teacher ‖ student)).

        A few thousand labels cannot tell one epoch from the next, and the epoch that they like best
        is partly luck; how near the student is to its teacher can be measured.
        """
        if self._weakness is not None:
            self._weakness.update(self.state.step, logits)
        if self._teaching.valid_logits is None:
            return super().score(point, logits)
        divergence = row_divergence(self._teaching.valid_logits, logits)
        return -float(np.sqrt(np.average(divergence, weights=self._valid_weight)))

    @property
    def _weakness(self) -> Weakness | None:
        factory = self._teaching.factory
        return None if factory is None else factory.weakness

    def extra_state(self) -> dict[str, Tensor]:
        state = self._modules.state_dict()
        if self._weakness is not None:
            for step, known in self._weakness.state().items():
                state[f"{_WEAKNESS}{step}"] = torch.from_numpy(known)
        return state

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        known = {
            int(name.removeprefix(_WEAKNESS)): value.cpu().numpy()
            for name, value in state.items()
            if name.startswith(_WEAKNESS)
        }
        if self._weakness is not None:
            self._weakness.restore(known)
        self._modules.load_state_dict(
            {name: value for name, value in state.items() if not name.startswith(_WEAKNESS)}
        )

    def _step(self, batch: TensorBatch, made: LabelledRows | None) -> Step:
        """The student's pass over logged and made-up rows, and what its terms need beside it."""
        distill, options = self._distill, self.options
        # Before the student's own pass, whose weights autograd must find unchanged.
        average = self._average_logits(batch, made) if distill.ema > 0 else None
        inputs, hidden, branches = self._student(batch, made)
        teacher = self._teacher_logits[torch.from_numpy(batch.index)].to(self.device)
        labels, has_label, weight = self._targets(batch, made)
        if made is not None:
            teacher = torch.cat([teacher, self._tensor(made.logits)])
        gated = None
        if self._modules.gate is not None:
            gated = self._modules.gate(teacher, hidden[-1].float())
            teacher = gated.detach()
        epoch = self.state.step / self._steps_per_epoch
        return Step(
            config=distill,
            batch=batch,
            head=self.network.head,
            inputs=inputs,
            hidden=hidden,
            branches=branches,
            teacher=teacher,
            average=average,
            gated=gated,
            labels=labels,
            has_label=has_label,
            weight=weight,
            alpha=schedule_value(distill.alpha, epoch, options.max_epochs),
            temperature=self._temperature(epoch, teacher),
            base_logit=self._base_logit,
            seed=(self.seed, self.state.step),
            precision=options.precision,
            modules=self._modules,
            hints=self._teaching.features,
            noised=self._noised(batch) if distill.hints.noise > 0 else None,
            views=self._view_logits(batch) if distill.views > 0 else None,
            unpruned=self._logits_of(self._modules.unpruned, batch, made),
            unrounded=self._unrounded_logits(batch, made),
        )

    def _temperature(self, epoch: float, teacher: Tensor) -> float | Tensor:
        """The schedule's value, or (R,) that follow the teacher's certainty."""
        schedule = self._distill.temperature
        if schedule.kind == "adaptive":
            return adaptive_temperature(schedule, teacher)
        return schedule_value(schedule, epoch, self.options.max_epochs)

    def _student(
        self, batch: TensorBatch, made: LabelledRows | None
    ) -> tuple[HeadInputs, tuple[Tensor, ...], Tensor]:
        """The head's inputs, its hidden layers and the logits of its branches."""
        head = self.network.head
        with autocast(self.options.precision, self.device):
            inputs = self.network.inputs(*self._rows(batch, made))
            hidden = head.hidden(inputs)
            return inputs, hidden, head.branch_scores(hidden[-1], inputs).float()

    def _noised(self, batch: TensorBatch) -> tuple[TensorBatch, tuple[Tensor, ...]]:
        """Logged rows with features missing, and the student's hidden layers of them."""
        rng = np.random.default_rng([self.seed, self.state.step, 0x401])
        rows = masked(batch, self.network.selection, self._distill.hints.noise, rng)
        with autocast(self.options.precision, self.device):
            inputs = self.network.inputs(rows.dense, rows.ids, rows.stats)
            return rows, self.network.head.hidden(inputs)

    def _view_logits(self, batch: TensorBatch) -> tuple[Tensor, Tensor]:
        """(B,) logits of the logged rows' content view and behaviour view."""
        views = self._teaching.views
        assert views is not None
        with autocast(self.options.precision, self.device):
            content, behaviour = (
                self.network(rows.dense, rows.ids, rows.stats).float()
                for rows in (views.content(batch), views.behaviour(batch))
            )
        return content, behaviour

    def _logits_of(
        self, network: CTRNetwork | None, batch: TensorBatch, made: LabelledRows | None
    ) -> Tensor | None:
        """(R,) logits of another network on the same rows."""
        if network is None:
            return None
        with autocast(self.options.precision, self.device):
            logits: Tensor = network(*self._rows(batch, made))
        return logits.float()

    def _unrounded_logits(self, batch: TensorBatch, made: LabelledRows | None) -> Tensor | None:
        int8 = self._teaching.int8
        with torch.no_grad():
            return self._logits_of(None if int8 is None else int8.unrounded, batch, made)

    def _average_logits(self, batch: TensorBatch, made: LabelledRows | None) -> Tensor:
        """Logits of the moving average on the same rows, without dropout."""
        assert self.average is not None
        self.network.eval()
        precision = autocast(self.options.precision, self.device)
        with self.average.applied(), torch.no_grad(), precision:
            logits: Tensor = self.network(*self._rows(batch, made))
        self.network.train()
        return logits.float()

    @staticmethod
    def _targets(batch: TensorBatch, made: LabelledRows | None) -> tuple[Tensor, Tensor, Tensor]:
        """Labels, whether there is one, and weights: a made-up row weighs what a logged one does
        on average."""
        assert batch.labels is not None
        ones = torch.ones_like(batch.labels)
        weight = ones if batch.sample_weight is None else batch.sample_weight
        if made is None:
            return batch.labels, ones, weight
        extra = ones.new_ones(len(made.rows))
        return (
            torch.cat([batch.labels, 0 * extra]),
            torch.cat([ones, 0 * extra]),
            torch.cat([weight, extra * weight.mean()]),
        )

    def _made_rows(self) -> LabelledRows | None:
        if self._teaching.factory is None:
            return None
        if self._made is None:
            count = max(round(self._distill.augmented_per_row * self.batch_size), 1)
            self._made = self._teaching.factory.batches(self.state.step, count)
        return next(self._made)

    def _rows(
        self, batch: TensorBatch, made: LabelledRows | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logged rows, then made-up rows, whose statistics come from the frozen tables."""
        if made is None:
            return batch.dense, batch.ids, batch.stats
        stats = batch.stats
        if stats is not None and made.rows.stats is not None:
            stats = torch.cat([stats, self._tensor(made.rows.stats)])
        return (
            torch.cat([batch.dense, self._tensor(made.rows.dense)]),
            torch.cat([batch.ids, self._tensor(made.rows.ids)]),
            stats,
        )

    def _tensor(self, array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self.device)
