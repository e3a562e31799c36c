"""What every learner is: the protocol, its reports and the statistics it is given."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from dynens.batch import EncodedBatch, FeatureLayout, FloatArray
from dynens.config.learner import LearnerConfig


class StatSource(Protocol):
    """The frozen target and count encodings (`dynens.data.statistics.StatTables`)."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def table(self) -> FloatArray: ...


@dataclass(frozen=True)
class CurvePoint:
    """One validation point. `epoch` counts passes over the training rows and may be fractional.

    `score` is what early stopping maximises, NaN where nothing was stopped by one.
    """

    epoch: float
    train_loss: float
    valid_auc: float
    valid_logloss: float
    learning_rate: float
    score: float = math.nan


def validation_score(point: CurvePoint) -> float:
    """What early stopping maximises: AUC, or -logloss where validation has a single class."""
    return -point.valid_logloss if math.isnan(point.valid_auc) else point.valid_auc


def auc_at(curve: Sequence[CurvePoint], epoch: float) -> float:
    """The AUC on validation rows at a point of a training; NaN where there is no such point."""
    return next((point.valid_auc for point in curve if point.epoch == epoch), math.nan)


@dataclass(frozen=True)
class FitReport:
    """What `fit` did: the training curve, wall time in seconds, and the point it kept.

    `best_score` is what early stopping maximised there, -inf where nothing was stopped by one;
    `is_cut` says that time was up before training was done.
    """

    curve: tuple[CurvePoint, ...]
    seconds: float
    best_epoch: float
    best_auc: float
    best_score: float = -math.inf
    is_cut: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without `best_score`, which only compares trainings of one kind."""
        values = asdict(self)
        del values["best_score"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FitReport:
        """What `to_dict` gave, once it was JSON.

        Earlier versions wrote no scores, which are those of a learner then.
        """

        def number(value: float | None) -> float:
            return math.nan if value is None else value

        def point_of(given: Mapping[str, float | None]) -> CurvePoint:
            point = CurvePoint(**{name: number(value) for name, value in given.items()})
            return point if "score" in given else replace(point, score=validation_score(point))

        curve = tuple(point_of(point) for point in values["curve"])
        seconds, epoch, best = (values[name] for name in ("seconds", "best_epoch", "best_auc"))
        cut = values.get("is_cut", False)
        return cls(curve, seconds, number(epoch), number(best), is_cut=cut)

    @property
    def best_index(self) -> int:
        """Position in the curve of the point that was kept; the last one where none was."""
        found = (i for i, point in enumerate(self.curve) if point.epoch == self.best_epoch)
        return next(found, len(self.curve) - 1)

    @property
    def points_per_epoch(self) -> int:
        """How often an epoch was validated."""
        return max(sum(point.epoch <= 1 for point in self.curve), 1)

    def followed(self, index: int, point: CurvePoint) -> CurvePoint:
        """A later training's point, with what validation said at the same one of this training."""
        said = self.curve[index]
        return replace(
            point, valid_auc=said.valid_auc, valid_logloss=said.valid_logloss, score=said.score
        )


@dataclass(frozen=True)
class FitProgress:
    """Sent to the `progress` callback after every validation point.

    `fraction` is a rough share of the work done, in [0, 1].
    """

    learner: str
    fraction: float
    point: CurvePoint


ProgressCallback = Callable[[FitProgress], None]


@dataclass(frozen=True)
class FitOptions:
    """What a training goes by, beside a learner's settings and its rows.

    Attributes:
        unlabelled: further training rows, which most learners make nothing of.
        checkpoint_dir: where checkpoints go; None writes none. Where it holds that of an
            interrupted run of the same learner, training continues there and ends as the
            undisturbed run would have.
        progress: called after every validation point.
        follow: how an earlier training of the same learner went, on rows without the validation
            rows. This one, on rows with them, takes what validation said from there: it lowers its
            learning rate at the same points and ends at the one that was kept.
        ends_at: when training ends with a last validation point, of which the best one is kept, in
            seconds as `time.time` counts them.
    """

    unlabelled: EncodedBatch | None = None
    checkpoint_dir: Path | None = None
    progress: ProgressCallback | None = None
    follow: FitReport | None = None
    ends_at: float | None = None


PLAINLY = FitOptions()


def is_time_up(ends_at: float | None) -> bool:
    """Whether `ends_at` has come, in seconds as `time.time` counts them; never where it is None."""
    return ends_at is not None and time.time() >= ends_at


class BaseLearner(Protocol):
    """A base learner of the pool. Same seed, rows and thread count give the same learner."""

    config: LearnerConfig
    layout: FeatureLayout
    seed: int

    def __init__(
        self, config: LearnerConfig, layout: FeatureLayout, stats: StatSource, seed: int
    ) -> None: ...

    def fit(self, train: EncodedBatch, valid: EncodedBatch, how: FitOptions = PLAINLY) -> FitReport:
        """Train on `train` (its `.stats` are leakage-free); `valid` only stops training early.

        Raises:
            TrainingError: the loss stopped being finite; the last good checkpoint is kept.
        """
        ...

    def predict_logits(self, batch: EncodedBatch) -> FloatArray:
        """(B,) float32 logits; target and count encodings come from the frozen tables."""
        ...

    def training_logits(
        self, train: EncodedBatch, unlabelled: EncodedBatch | None = None
    ) -> FloatArray:
        """(B,) float32 logits of the rows it was trained on, for a student to learn from.

        Where a row's label would be an input of its own logit, it is left out.
        """
        del unlabelled
        return self.predict_logits(train)

    def save(self, directory: Path) -> None:
        """Write everything `load` needs: JSON and arrays, nothing pickled."""
        ...

    @classmethod
    def load(cls, directory: Path) -> Self: ...

    def export_onnx(self, path: Path) -> None:
        """Write a graph with inputs as `graph_inputs` names them and output `logit` (N,)."""
        ...


def positive_rate(labels: FloatArray, weight: FloatArray | None) -> float:
    """Weighted share of positive rows, kept inside (0, 1) so that its logit is finite."""
    rate = float(np.average(labels, weights=weight)) if len(labels) else 0.5
    return min(max(rate, 1e-6), 1 - 1e-6)


def bootstrap_rows(num_rows: int, seed: int) -> npt.NDArray[np.int64]:
    """`num_rows` row numbers drawn with replacement."""
    return np.random.default_rng([seed, 0xB007]).integers(0, num_rows, num_rows)
