"""Runs the engine's steps for many requests on one event loop.

The student's part of a request runs at once. Ensemble work takes turns, earliest deadline first,
one request at a time: interleaving equal jobs would only make all of them late. Its chunks run in
one scoring thread (ONNX Runtime lets go of the interpreter), so that the loop is free for new
arrivals, other requests' protocol work and health checks; a handover costs more than its 20 µs
where cores are few, so work shorter than two milliseconds stays on the loop.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from dynens.batch import EncodedBatch
from dynens.config.serving import System
from dynens.engine import Engine, Pause, Scores, Step, Steps
from serving.admission import ensemble_seconds

# Told that this much ensemble work is about to begin; a request that may last can watch its client.
OnWait = Callable[[], None]


class OverloadedError(Exception):
    """The ensemble is promised to others, and the system cannot answer without it."""


class Turns:
    """A lock handed on by earliest deadline."""

    def __init__(self) -> None:
        self._busy = False
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    @property
    def busy(self) -> bool:
        return self._busy

    async def acquire(self, deadline_s: float) -> None:
        if not self._busy:
            self._busy = True
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (deadline_s, next(self._order), future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release()  # the turn came together with the cancellation
            raise

    def release(self) -> None:
        while self._waiting:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)
                return
        self._busy = False


class Scheduler:
    """Schedules one replica's ensemble work.

    Args:
        threaded: run long ensemble work in the scoring thread instead of on the loop.
    """

    def __init__(self, *, threaded: bool = True) -> None:
        self.turns = Turns()
        self.backlog_s = 0.0
        self._thread = ThreadPoolExecutor(1, "scoring") if threaded else None

    async def score(
        self,
        engine: Engine,
        batch: EncodedBatch,
        *,
        system: System,
        deadline_s: float,
        threshold: float | None,
        on_wait: OnWait | None = None,
    ) -> Scores:
        """Score `batch` by `deadline_s` (a reading of the engine's clock).

        Args:
            engine: the bundle that answers.
            batch: encoded rows.
            system: which of the engine's systems.
            deadline_s: when the scores must be complete.
            threshold: laid over the bundle's, or None.
            on_wait: called once before work that others may interrupt.

        Raises:
            BudgetSpentError: no complete answer fits any more.
            OverloadedError: a static ensemble would have to wait for too long.
        """
        steps = engine.steps(batch, system=system, deadline_s=deadline_s, threshold=threshold)
        try:
            step = next(steps)
            while step.pause is Pause.CHUNK:
                await asyncio.sleep(0)
                step = next(steps)
            return await self._ensemble(engine, steps, step, system, deadline_s, on_wait)
        except StopIteration as stop:
            scores: Scores = stop.value
            return scores
        finally:
            steps.close()

    async def _ensemble(
        self,
        engine: Engine,
        steps: Steps,
        step: Step,
        system: System,
        deadline_s: float,
        on_wait: OnWait | None,
    ) -> Scores:
        now = engine.clock()
        wanted = step.rows_left
        allowed = self._allowed_rows(engine, step, deadline_s - now, now)
        promised_s = step.excess * engine.ensemble_cost.seconds(allowed, now) if allowed else 0.0
        self.backlog_s += promised_s
        try:
            if allowed < wanted and system not in ("dynamic", "student"):
                raise OverloadedError
            if not allowed:
                return _finish(steps, 0)
            if on_wait is not None and (self.turns.busy or promised_s > _LONG_S):
                on_wait()
            await self.turns.acquire(deadline_s)
            try:
                if self._thread is not None and promised_s > _WORTH_A_HANDOVER_S:
                    return await self._run_in_thread(self._thread, steps, allowed)
                return await self._run_on_loop(steps, allowed)
            finally:
                self.turns.release()
        finally:
            self.backlog_s = max(self.backlog_s - promised_s, 0.0)

    async def _run_in_thread(
        self, thread: ThreadPoolExecutor, steps: Steps, allowed: int
    ) -> Scores:
        sent: int | None = allowed
        while True:
            chunk: Future[Scores | None] = thread.submit(_advance, steps, sent)
            try:
                scores = await asyncio.wrap_future(chunk)
            except asyncio.CancelledError:
                # A chunk cannot be interrupted, and its generator must not be closed under it.
                while not (chunk.done() or chunk.cancel()):
                    await asyncio.sleep(_CHUNK_POLL_S)
                raise
            if scores is not None:
                return scores
            sent = None

    async def _run_on_loop(self, steps: Steps, allowed: int) -> Scores:
        try:
            steps.send(allowed)
            while True:
                await asyncio.sleep(0)
                next(steps)
        except StopIteration as stop:
            scores: Scores = stop.value
            return scores

    def _allowed_rows(self, engine: Engine, step: Step, seconds_left: float, now: float) -> int:
        if self.backlog_s <= 0:
            return step.rows_left  # alone: the engine itself grants what fits
        usable_s = ensemble_seconds(seconds_left, self.backlog_s) / step.excess
        cost, margin = engine.ensemble_cost, engine.config.safety_margin
        return min(step.rows_left, cost.rows_within(usable_s, now, margin))


# Work predicted to take longer than this is worth watching the client's connection for.
_LONG_S = 2e-3
_WORTH_A_HANDOVER_S = 2e-3
_CHUNK_POLL_S = 2e-4


def _advance(steps: Steps, sent: int | None) -> Scores | None:
    """Run one chunk; the scores when it was the last."""
    try:
        steps.send(sent)
    except StopIteration as stop:
        scores: Scores = stop.value
        return scores
    return None


def _finish(steps: Steps, allowed: int) -> Scores:
    """Run steps to the end without pausing."""
    try:
        steps.send(allowed)
        while True:
            next(steps)
    except StopIteration as stop:
        scores: Scores = stop.value
        return scores
