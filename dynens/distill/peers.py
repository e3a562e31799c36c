"""Asynchronous mutual learning: students side by side that learn from one another's latest answers.

Every peer trains at its own pace. After each epoch it publishes the probabilities that it gave the
logged rows on its way, and takes the mean of what the others published last; until then it learns
from what it took before. A peer that is more epochs ahead of another than `staleness` allows waits.

References:
    Zhang et al., "Deep Mutual Learning", CVPR 2018, section 3.3 (each peer learns from the mean of
    the others' KL terms, whose gradient is that of the KL to their mean); Anil et al., "Large Scale
    Distributed Neural Network Training through Online Distillation", ICLR 2018 (stale answers of
    peers on other machines serve as well).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from dynens.batch import FloatArray

# A peer that has not been heard of for so long, or for so many of the longest epochs, is not waited
# for.
PATIENCE_S, PATIENCE_EPOCHS = 300.0, 3
_POLL_S = 0.1


@dataclass(frozen=True)
class News:
    """What peers have been heard of last.

    Attributes:
        epochs: that each of the others has finished, by peer; infinite for one that ended.
        silent_s: seconds since each of them published or asked for news.
        patience_s: seconds of silence after which a peer is not waited for.
        answers: (N,) mean of their answers, NaN where none has answered a row; None: no news.
    """

    epochs: dict[int, float]
    silent_s: dict[int, float]
    patience_s: float
    answers: FloatArray | None


class Board(Protocol):
    """Where peers leave their answers for the others."""

    def publish(self, peer: int, epoch: float, answers: FloatArray) -> None:
        """`peer` has finished so many epochs; (N,) probabilities, NaN for rows it did not see."""
        ...

    def end(self, peer: int) -> None:
        """`peer` trains no more; its last answers stay."""
        ...

    def news(self, peer: int, *, with_answers: bool) -> News:
        """What `peer` may know of the others."""
        ...


@dataclass
class LocalBoard:
    """A board in this process.

    Args:
        count: peers, numbered from 0.
        clock: in seconds.
    """

    count: int
    clock: Callable[[], float] = time.monotonic
    _answers: dict[int, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._epochs = dict.fromkeys(range(self.count), 0.0)
        self._heard_s = dict.fromkeys(range(self.count), self.clock())
        self._longest_epoch_s = 0.0

    def publish(self, peer: int, epoch: float, answers: FloatArray) -> None:
        now = self.clock()
        self._longest_epoch_s = max(self._longest_epoch_s, now - self._heard_s[peer])
        self._epochs[peer], self._heard_s[peer] = epoch, now
        self._answers[peer] = answers

    def end(self, peer: int) -> None:
        self._epochs[peer] = np.inf

    def news(self, peer: int, *, with_answers: bool) -> News:
        others = [other for other in range(self.count) if other != peer]
        now = self._heard_s[peer] = self.clock()
        known = [self._answers[other] for other in others if other in self._answers]
        return News(
            {other: self._epochs[other] for other in others},
            {other: now - self._heard_s[other] for other in others},
            max(PATIENCE_S, PATIENCE_EPOCHS * self._longest_epoch_s),
            mean_of_known(known) if with_answers and known else None,
        )


def mean_of_known(answers: list[FloatArray]) -> FloatArray:
    """(N,) mean over those of several (N,) that are not NaN; NaN where all are."""
    values = np.stack(answers)
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0, dtype=np.float64)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return np.asarray(mean, dtype=np.float32)


@dataclass(frozen=True)
class Exchange:
    """One peer's side of the board.

    Attributes:
        board: shared with the others.
        peer: the number of this one.
        staleness: epochs that it may be ahead of any other.
    """

    board: Board
    peer: int
    staleness: int

    def swap(self, epoch: float, answers: FloatArray) -> FloatArray | None:
        """Publish own answers after an epoch and take the others', once none is too far behind."""
        self.board.publish(self.peer, epoch, answers)
        while self._is_ahead(epoch, self.board.news(self.peer, with_answers=False)):
            time.sleep(_POLL_S)
        return self.board.news(self.peer, with_answers=True).answers

    def _is_ahead(self, epoch: float, news: News) -> bool:
        return any(
            other < epoch - self.staleness and news.silent_s[peer] < news.patience_s
            for peer, other in news.epochs.items()
        )


class PeerAnswers(nn.Module):
    """A probability for every training row: this peer's own latest, and the mean of the others'.

    Args:
        num_rows: N training rows.
    """

    own: Tensor
    others: Tensor

    def __init__(self, num_rows: int) -> None:
        super().__init__()
        self.register_buffer("own", torch.full((num_rows,), torch.nan))
        self.register_buffer("others", torch.full((num_rows,), torch.nan))

    def forward(self, index: Tensor, probability: Tensor) -> Tensor:
        """Remember (B,) own probabilities of rows `index`; returns the others', NaN for none."""
        self.own[index] = probability.detach()
        return self.others[index]

    def swap(self, exchange: Exchange, epoch: float) -> None:
        """Publish what is remembered and take what the others have."""
        answers = exchange.swap(epoch, np.array(self.own.cpu()))
        if answers is not None:
            self.others.copy_(torch.from_numpy(np.array(answers)))
