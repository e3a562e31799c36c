"""Turns and allowances on an event loop, driven by events and a clock that only work moves."""

import asyncio
import threading
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dynens.budget import CostModel
from dynens.engine import BudgetSpentError, Pause, Scores, Step
from serving.scheduler import OverloadedError, Promise, Scheduler, Turns

ROW_S = 1e-3


class FakeEngine:
    """Ten rows a chunk, a millisecond a row, everything written down."""

    def __init__(self) -> None:
        self.now = 0.0
        self.config = SimpleNamespace(safety_margin=0.0, chunk_ms=1e4 * ROW_S)
        self.ensemble_cost = CostModel(0.0, ROW_S)
        self.excess = 1.0
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now

    def steps(
        self, batch: Any, *, system: str, deadline_s: float, threshold: float | None
    ) -> Generator[Step, int | None, Scores]:
        name, wanted = batch
        if deadline_s <= self.now:
            raise BudgetSpentError
        self.log.append(f"{name} student")
        granted = 0
        if wanted:
            allowed = yield Step(Pause.ENSEMBLE, wanted, self.excess)
            limit = wanted if allowed is None else allowed
            while granted < limit:
                rows = min(10, limit - granted)
                self.now += rows * ROW_S
                self.log.append(f"{name} {rows}")
                granted += rows
                if granted < limit and (yield Step(Pause.CHUNK, limit - granted)) == 0:
                    break
        return Scores(np.zeros(1, np.float32), np.zeros(1, np.int32), wanted, granted)


@pytest.fixture(params=[True, False], ids=["thread", "loop"])
def scheduler(request: pytest.FixtureRequest) -> Scheduler:
    return Scheduler(threaded=request.param)


async def score(
    scheduler: Scheduler,
    engine: Any,
    name: str,
    wanted: int,
    deadline: float,
    system: Any = None,
    pressure: float = 0.0,
) -> Scores:
    return await scheduler.score(
        engine,
        (name, wanted),  # type: ignore[arg-type]
        system=system or "dynamic",
        deadline_s=deadline,
        threshold=None,
        pressure=pressure,
    )


def test_ensembles_take_turns_by_deadline_while_students_run_at_once(scheduler: Scheduler) -> None:
    async def go() -> None:
        engine = FakeEngine()
        await asyncio.gather(
            score(scheduler, engine, "a", 20, 10.0),
            score(scheduler, engine, "late", 10, 9.0),
            score(scheduler, engine, "soon", 10, 5.0),
            score(scheduler, engine, "easy", 0, 5.0),
        )
        students = [entry for entry in engine.log if entry.endswith("student")]
        assert engine.log.index("easy student") < engine.log.index("a 10") + 4
        assert students == ["a student", "late student", "soon student", "easy student"]
        ensembles = [entry for entry in engine.log if not entry.endswith("student")]
        assert ensembles == ["a 10", "soon 10", "late 10", "a 10"]
        assert not scheduler.promises
        assert not scheduler.turns.busy

    asyncio.run(go())


def test_behind_a_backlog_the_hard_share_shrinks(scheduler: Scheduler) -> None:
    async def go() -> None:
        engine = FakeEngine()
        scheduler.promises = [Promise(0.0, 0.04)]
        scores = await score(scheduler, engine, "a", 100, 0.08)
        assert scores.hard_granted == 20  # 80 ms · (1 − 40/80)² = 20 ms
        scheduler.promises = [Promise(0.0, 0.08)]
        assert (await score(scheduler, engine, "b", 100, engine.now + 0.08)).hard_granted == 0

    asyncio.run(go())


def test_hard_rows_give_way_to_requests_that_have_not_come_in_yet(scheduler: Scheduler) -> None:
    """Of 40 ms left a pressure of a half leaves a quarter, ten rows; a static ensemble none."""

    async def go() -> None:
        engine = FakeEngine()
        for system, pressure, granted in (
            ("dynamic", 0.0, 30),
            ("dynamic", 0.5, 10),
            ("dynamic", 1.0, 0),
            ("ensemble", 1.0, 30),
        ):
            engine.now = 0.0
            scores = await score(scheduler, engine, "a", 30, 40 * ROW_S, system, pressure)
            assert scores.hard_granted == granted

    asyncio.run(go())


def test_rows_that_take_longer_than_the_model_says_are_promised_their_time() -> None:
    async def go() -> None:
        engine, scheduler = FakeEngine(), Scheduler()
        engine.excess = 2.0
        await scheduler.turns.acquire(0.0, 1.0)
        waiting = asyncio.create_task(score(scheduler, engine, "a", 10, 5.0))
        await asyncio.sleep(0)
        assert [p.seconds for p in scheduler.promises] == [pytest.approx(2 * 10 * ROW_S)]
        scheduler.turns.release()
        await waiting
        scheduler.promises = [Promise(0.0, 0.04)]
        later = engine.now + 0.08
        assert (await score(scheduler, engine, "b", 100, later)).hard_granted == 10  # 20 ms, halved

    asyncio.run(go())


def test_a_static_ensemble_is_shed_only_where_its_time_does_not_fit(scheduler: Scheduler) -> None:
    async def go() -> None:
        engine = FakeEngine()
        scheduler.promises = [Promise(0.0, 0.04)]
        with pytest.raises(OverloadedError):
            await score(scheduler, engine, "a", 41, 0.0805, "ensemble")  # 80.5 − 40 < 41 ms
        assert len(scheduler.promises) == 1
        scores = await score(scheduler, engine, "b", 40, 0.0805, "ensemble")
        assert scores.hard_granted == 40

    asyncio.run(go())


def test_a_cancelled_request_gives_its_turn_and_its_promise_back(scheduler: Scheduler) -> None:
    async def go() -> None:
        engine = FakeEngine()
        await scheduler.turns.acquire(0.0, 1.0)
        waiting = asyncio.create_task(score(scheduler, engine, "gone", 10, 5.0))
        await asyncio.sleep(0)
        assert [p.seconds for p in scheduler.promises] == [pytest.approx(10 * ROW_S)]
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not scheduler.promises
        scheduler.turns.release()
        assert (await score(scheduler, engine, "next", 10, 5.0)).hard_granted == 10
        assert "gone 10" not in engine.log

    asyncio.run(go())


def test_a_turn_that_comes_with_the_cancellation_is_handed_on() -> None:
    async def go() -> None:
        turns = Turns()
        await turns.acquire(0.0, 1.0)
        first = asyncio.create_task(turns.acquire(1.0, 10.0))
        second = asyncio.create_task(turns.acquire(2.0, 10.0))
        await asyncio.sleep(0)
        turns.release()  # to `first`, which is cancelled before it runs again
        first.cancel()
        await asyncio.wait_for(second, 1)
        assert turns.busy
        turns.release()
        assert not turns.busy

    asyncio.run(go())


def test_a_chunk_in_the_thread_ends_before_its_request_is_closed() -> None:
    async def go() -> None:
        engine, scheduler = FakeEngine(), Scheduler()
        entered, leave = threading.Event(), threading.Event()
        clock = engine.clock

        def steps(batch: Any, **_: Any) -> Generator[Step, int | None, Scores]:
            yield Step(Pause.ENSEMBLE, 100)
            entered.set()
            leave.wait(10)
            engine.log.append("chunk done")
            yield Step(Pause.CHUNK, 50)

        engine.steps = steps  # type: ignore[method-assign]
        assert clock() == 0.0
        running = asyncio.create_task(score(scheduler, engine, "a", 100, 5.0))
        await asyncio.to_thread(entered.wait, 10)
        running.cancel()
        await asyncio.sleep(0.01)
        assert not running.done()
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert engine.log == ["chunk done"]
        assert not scheduler.turns.busy
        assert not scheduler.promises

    asyncio.run(go())


def test_who_waits_until_its_deadline_is_answered_without_a_turn(scheduler: Scheduler) -> None:
    async def go() -> None:
        engine = FakeEngine()
        await scheduler.turns.acquire(0.0, 1.0)
        scores = await asyncio.wait_for(score(scheduler, engine, "a", 5, 0.02), 5)
        assert (scores.hard_wanted, scores.hard_granted) == (5, 0)
        assert scheduler.turns.busy  # still the first one's
        assert not scheduler.promises
        scheduler.turns.release()
        assert (await score(scheduler, engine, "b", 5, 0.02)).hard_granted == 5

    asyncio.run(go())


def test_a_long_request_lets_earlier_deadlines_pass_between_its_chunks(
    scheduler: Scheduler,
) -> None:
    async def go() -> None:
        engine = FakeEngine()
        long = asyncio.create_task(score(scheduler, engine, "long", 50, 10.0))
        while "long 10" not in engine.log:
            await asyncio.sleep(0)
        assert (await score(scheduler, engine, "short", 10, 1.0)).hard_granted == 10
        assert (await long).hard_granted == 50
        ensembles = [entry for entry in engine.log if not entry.endswith("student")]
        assert ensembles.index("short 10") < len(ensembles) - 1
        assert not scheduler.turns.busy

    asyncio.run(go())


def test_work_that_is_due_later_counts_one_chunk() -> None:
    scheduler = Scheduler(threaded=False)
    scheduler.promises = [Promise(1.0, 0.004), Promise(60.0, 0.5), Promise(50.0, 0.3)]
    assert scheduler.backlog_s(2.0, 0.003) == pytest.approx(0.004 + 0.003)
    assert scheduler.backlog_s(60.0, 0.003) == pytest.approx(0.804)
