"""Runs the engine's steps for many requests on one event loop.

The student's part of a request runs at once. Ensemble work takes turns, earliest deadline first:
interleaving equal jobs would only make all of them late, but between two chunks the turn goes to a
request that is due earlier. Who waits for a turn until its deadline is answered without one. Chunks
run in one scoring thread (ONNX Runtime lets go of the interpreter), so that the loop is free for
new arrivals, other requests' protocol work and health checks; a handover costs more than its 20 µs
where cores are few, so work shorter than two milliseconds stays on the loop.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from dynens.batch import Rows
from dynens.config.serving import System
from dynens.engine import Engine, Pause, Scores, Step, Steps
from serving.admission import ensemble_seconds

# Told that work of the ensemble may take long, or wait for its turn: time to watch the client.
OnWait = Callable[[], None]


class OverloadedError(Exception):
    """The ensemble is promised to others, and the system cannot answer without it."""


@dataclass(eq=False)
class Promise:
    """Ensemble work that was granted to a request and is still to be done."""

    deadline_s: float
    seconds: float


@dataclass(frozen=True)
class Claim:
    """What a request may ask of the ensemble.

    Attributes:
        deadline_s: when its scores must be complete.
        can_shrink: whether fewer rows than wanted are an answer too.
        pressure: 0 to 1, by which hard rows give way to requests that have not come in yet.
    """

    deadline_s: float
    can_shrink: bool
    pressure: float


class Turns:
    """A lock handed on by earliest deadline."""

    def __init__(self) -> None:
        self._busy = False
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Future[bool]]] = []

    @property
    def busy(self) -> bool:
        return self._busy

    async def acquire(self, deadline_s: float, timeout_s: float) -> bool:
        """Whether the turn came within `timeout_s`; only then it must be released."""
        if not self._busy:
            self._busy = True
            return True
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        heapq.heappush(self._waiting, (deadline_s, next(self._order), future))
        timer = loop.call_later(max(timeout_s - _TIMER_S, 0.0), _give_up, future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result():
                self.release()  # the turn came together with the cancellation
            raise
        finally:
            timer.cancel()

    def release(self) -> None:
        while self._waiting:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(True)
                return
        self._busy = False

    def wanted_before(self, deadline_s: float) -> bool:
        """Whether someone waits whose deadline is earlier."""
        while self._waiting and self._waiting[0][2].done():
            heapq.heappop(self._waiting)
        return bool(self._waiting) and self._waiting[0][0] < deadline_s


def _give_up(turn: asyncio.Future[bool]) -> None:
    if not turn.done():
        turn.set_result(False)


class Scheduler:
    """Schedules one replica's ensemble work.

    Args:
        threaded: run long ensemble work in the scoring thread instead of on the loop.
    """

    def __init__(self, *, threaded: bool = True) -> None:
        self.turns = Turns()
        self.promises: list[Promise] = []
        self._thread = ThreadPoolExecutor(1, "scoring") if threaded else None

    def backlog_s(self, deadline_s: float, chunk_s: float) -> float:
        """Promised work that comes before that of a request due at `deadline_s`.

        Of work that is due later, the chunk of `chunk_s` that may be running counts, once.
        """
        earlier = later = 0.0
        for promise in self.promises:
            if promise.deadline_s <= deadline_s:
                earlier += promise.seconds
            else:
                later = max(later, promise.seconds)
        return earlier + min(later, chunk_s)

    async def score(
        self,
        engine: Engine,
        rows: Rows,
        *,
        system: System,
        deadline_s: float,
        threshold: float | None,
        pressure: float = 0.0,
        on_wait: OnWait | None = None,
    ) -> Scores:
        """Score `rows` by `deadline_s` (a reading of the engine's clock).

        Args:
            engine: the bundle that answers.
            rows: encoded rows or candidates.
            system: which of the engine's systems.
            deadline_s: when the scores must be complete.
            threshold: laid over the bundle's, or None.
            pressure: 0 to 1, by which hard rows give way to requests that have not come in yet.
            on_wait: called once before work that others may interrupt.

        Raises:
            BudgetSpentError: no complete answer fits any more.
            OverloadedError: a static ensemble would have to wait for too long.
        """
        steps = engine.steps(rows, system=system, deadline_s=deadline_s, threshold=threshold)
        try:
            step = next(steps)
            while step.pause is Pause.CHUNK:
                await asyncio.sleep(0)
                step = next(steps)
            claim = Claim(deadline_s, system in ("dynamic", "student"), pressure)
            return await self._ensemble(engine, steps, step, claim, on_wait)
        except StopIteration as stop:
            scores: Scores = stop.value
            return scores
        finally:
            steps.close()

    async def _ensemble(
        self, engine: Engine, steps: Steps, step: Step, claim: Claim, on_wait: OnWait | None
    ) -> Scores:
        now, deadline_s = engine.clock(), claim.deadline_s
        allowed = self._allowed_rows(engine, step, claim, now)
        if allowed < step.rows_left and not claim.can_shrink:
            raise OverloadedError
        if not allowed:
            return _without_ensemble(steps)
        seconds = step.excess * engine.ensemble_cost.seconds(allowed, now)
        promise = Promise(deadline_s, min(seconds, max(deadline_s - now, 0.0)))
        self.promises.append(promise)
        try:
            if on_wait is not None and (self.turns.busy or seconds > _LONG_S):
                on_wait()
            if not await self.turns.acquire(deadline_s, deadline_s - now):
                return _without_ensemble(steps)
            return await self._run(engine, steps, allowed, step.excess, promise)
        finally:
            self.promises.remove(promise)

    async def _run(
        self, engine: Engine, steps: Steps, allowed: int, excess: float, promise: Promise
    ) -> Scores:
        """Chunk after chunk, in a turn that is this request's already and is given back."""
        thread = self._thread if promise.seconds > _WORTH_A_HANDOVER_S else None
        has_turn = True
        sent: int | None = allowed
        try:
            while True:
                if thread is None:
                    result = _advance(steps, sent)
                else:
                    result = await _in_thread(thread, steps, sent)
                if isinstance(result, Scores):
                    return result
                sent = None
                if thread is None:
                    await asyncio.sleep(0)
                now = engine.clock()
                promise.seconds = excess * engine.ensemble_cost.seconds(result.rows_left, now)
                if self.turns.wanted_before(promise.deadline_s):
                    self.turns.release()
                    has_turn = False
                    left_s = promise.deadline_s - now
                    has_turn = await self.turns.acquire(promise.deadline_s, left_s)
                    if not has_turn:
                        return _without_ensemble(steps)
        finally:
            if has_turn:
                self.turns.release()

    def _allowed_rows(self, engine: Engine, step: Step, claim: Claim, now: float) -> int:
        """Rows that may have the ensemble; of a request that cannot shrink, all that still fit."""
        backlog_s = self.backlog_s(claim.deadline_s, engine.config.chunk_ms / 1e3)
        pressure = claim.pressure if claim.can_shrink else 0.0
        if backlog_s <= 0 and pressure <= 0:
            return step.rows_left  # alone: the engine itself grants what fits
        left_s = claim.deadline_s - now
        usable_s = left_s - backlog_s
        if claim.can_shrink:
            usable_s = ensemble_seconds(left_s, backlog_s, pressure)
        cost, margin = engine.ensemble_cost, engine.config.safety_margin
        return min(step.rows_left, cost.rows_within(usable_s / step.excess, now, margin))


# Work predicted to take longer than this is worth watching the client's connection for.
_LONG_S = 2e-3
_WORTH_A_HANDOVER_S = 2e-3
_CHUNK_POLL_S = 2e-4
# Timers of an event loop come up to a millisecond late, and who gives up still has to answer.
_TIMER_S = 1.5e-3


async def _in_thread(thread: ThreadPoolExecutor, steps: Steps, sent: int | None) -> Scores | Step:
    chunk: Future[Scores | Step] = thread.submit(_advance, steps, sent)
    try:
        return await asyncio.wrap_future(chunk)
    except asyncio.CancelledError:
        # A chunk cannot be interrupted, and its generator must not be closed under it.
        while not (chunk.done() or chunk.cancel()):
            try:
                await asyncio.sleep(_CHUNK_POLL_S)
            except asyncio.CancelledError:
                continue
        raise


def _advance(steps: Steps, sent: int | None) -> Scores | Step:
    """Run one chunk; the scores when it was the last."""
    try:
        return steps.send(sent)
    except StopIteration as stop:
        scores: Scores = stop.value
        return scores


def _without_ensemble(steps: Steps) -> Scores:
    """End steps at a pause: no (more) rows get the ensemble."""
    scores = _advance(steps, 0)
    assert isinstance(scores, Scores)
    return scores
