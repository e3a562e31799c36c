"""Who is let in at one replica: what it holds, what still arrives, and each request's time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dynens.budget import CostModel
from dynens.engine import Engine
from serving.admission import StandingQueue, Verdict, admit
from serving.errors import RequestError

_RETRY_AFTER_S = 1
_UPLOADS_PER_PLACE = 8
_WHY = {
    Verdict.FULL: "this replica's queue is full; try again",
    Verdict.NO_TIME: "too little of the latency budget is left after queueing; try again",
    Verdict.STANDING: "more requests arrive than can be answered in time; try again",
}


@dataclass
class Progress:
    """One request on its way: when it came, when its answer is due, and whether a header says so.

    Without the header a parameter in the body may still change it. The queue hears of a request
    once, when its budget is final or it is turned away.
    """

    arrival_s: float
    queued_s: float
    budget_ms: float
    by_header: bool
    is_observed: bool = False
    is_held: bool = False

    @property
    def deadline_s(self) -> float:
        return self.arrival_s + self.budget_ms / 1e3


class Gate:
    """Admission to one replica.

    Args:
        max_queued: complete requests that it holds at a time; eight times as many may still be
            arriving, so that clients that stall do not close the queue to others.

    Attributes:
        in_flight: requests that it holds.
        queue: of what waits before the replica.
        reply_cost: of turning scores into an answer; learned, like the engine's own costs.
    """

    def __init__(self, max_queued: int) -> None:
        self.in_flight = 0
        self.queue = StandingQueue()
        self.reply_cost = CostModel(5e-5, 6e-7)
        self._max_queued = max_queued
        self._uploads = 0

    def admit(self, progress: Progress, engine: Engine) -> None:
        """Raise RequestError unless the request is worth the work; its budget is known by now."""
        now, budget_s = engine.clock(), progress.budget_ms / 1e3
        self._observe(progress, now)
        cheapest_s = engine.student_cost.seconds(1, now) + self.reply_cost.seconds(1, now)
        others = self.in_flight - progress.is_held
        verdict = admit(others, self._max_queued, progress.deadline_s - now, cheapest_s)
        if verdict is Verdict.ACCEPT:
            if not self.queue.refuses(progress.queued_s, budget_s):
                return
            verdict = Verdict.STANDING
        raise spent() if verdict is Verdict.SPENT else shed(verdict.name.lower(), _WHY[verdict])

    @contextmanager
    def uploading(self) -> Iterator[None]:
        """While a request's body arrives."""
        if self._uploads >= _UPLOADS_PER_PLACE * self._max_queued:
            raise shed("full", _WHY[Verdict.FULL])
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    @contextmanager
    def holding(self, progress: Progress, engine: Engine) -> Iterator[None]:
        """From a request's last byte until its scores are there."""
        if self.in_flight >= self._max_queued:
            self._observe(progress, engine.clock())
            raise shed("full", _WHY[Verdict.FULL])
        self.in_flight += 1
        progress.is_held = True
        try:
            yield
        finally:
            self.in_flight -= 1

    def _observe(self, progress: Progress, now_s: float) -> None:
        if not progress.is_observed:
            progress.is_observed = True
            self.queue.observe(progress.queued_s, progress.budget_ms / 1e3, now_s)


def shed(reason: str, message: str) -> RequestError:
    """A 503 of a request that may be sent again."""
    header = ("Retry-After", str(_RETRY_AFTER_S))
    return RequestError(503, message, reason=f"shed_{reason}", header=header)


def spent() -> RequestError:
    """The 504 of a request whose time is over."""
    message = "the latency budget was spent before an answer was ready"
    return RequestError(504, message, reason="budget_spent")
