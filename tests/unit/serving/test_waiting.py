"""What requests wait for, and for how long: bodies, the queue, the ensemble, their clients."""

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from dynens.engine import Engine
from serving.application import Application
from tests.asgi import Answer, call, request
from tests.unit.serving.bodies import RANK, make


def test_a_full_queue_sheds_with_retry_after(engine: Engine) -> None:
    app = make(engine, max_queued=1, threshold=float("-inf"))

    async def go() -> tuple[Answer, Answer, Answer]:
        await app._scheduler.turns.acquire(0.0, 1.0)  # somebody else's ensemble work
        first = asyncio.create_task(request(app, "POST", RANK, b'{"candidates":["i1"]}'))
        await asyncio.sleep(0)
        shed = await request(app, "POST", RANK, b'{"candidates":["i1"]}')
        app._scheduler.turns.release()
        return await first, shed, await request(app, "POST", RANK, b'{"candidates":["i1"]}')

    first, shed, after = asyncio.run(go())
    assert shed.status == 503
    assert shed.headers["retry-after"] == "1"
    assert (first.status, after.status) == (200, 200)


def test_what_a_full_queue_turns_away_is_heard_of(engine: Engine) -> None:
    """Or the wait would be thought short just where most are turned away."""
    app = make(engine, max_queued=1, threshold=float("-inf"))
    heard: list[float] = []
    app._gate.queue.observe = lambda queued_s, *_: heard.append(queued_s)  # type: ignore[method-assign]

    async def go() -> list[int]:
        await app._scheduler.turns.acquire(0.0, 1.0)
        bodies = [b'{"candidates":["i1"]}'] * 3
        tasks = [asyncio.create_task(request(app, "POST", RANK, body)) for body in bodies]
        await asyncio.sleep(0.05)
        app._scheduler.turns.release()
        return sorted(answer.status for answer in await asyncio.gather(*tasks))

    assert asyncio.run(go()) == [200, 503, 503]
    assert len(heard) == 3


def test_uploads_that_stall_do_not_close_the_queue(engine: Engine) -> None:
    app = make(engine, max_queued=1)

    async def go() -> tuple[list[int], int]:
        stuck = [asyncio.create_task(upload(app, b"", asyncio.Event())) for _ in range(8)]
        await asyncio.sleep(0)
        assert app._gate.in_flight == 0
        refused = await upload(app, b"", asyncio.Event())  # too many of them
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        answered = await request(app, "POST", RANK, b'{"candidates":["i1"]}')
        return [refused], answered.status

    assert asyncio.run(go()) == ([503], 200)


@pytest.mark.parametrize("given", ["header", "parameter"])
def test_large_bodies_wait_in_the_queue_and_not_beside_it(engine: Engine, given: str) -> None:
    app = make(engine, max_queued=2)
    wide = {"candidates": [f"i{i % 5}{'x' * 40}" for i in range(8000)]}
    limit = {"latency_budget_ms": 30} if given == "parameter" else {}
    body = orjson.dumps(wide | limit)
    headers = {"x-latency-budget-ms": "30"} if given == "header" else {}

    async def go() -> list[int]:
        sent = (request(app, "POST", RANK, body, headers) for _ in range(20))
        return [answer.status for answer in await asyncio.gather(*sent)]

    statuses = asyncio.run(go())
    assert statuses.count(503) >= 18  # a slow first one leaves the second no time
    assert app._gate.in_flight == 0


@pytest.mark.parametrize("given", ["header", "parameter"])
def test_a_budget_longer_than_the_default_holds_from_the_start(engine: Engine, given: str) -> None:
    """Queued longer than the default budget, and with a body that takes longer to come."""
    app = make(engine, latency_budget_ms=20)
    body, headers = (
        b'{"candidates":["i1"]}',
        {"x-request-start": f"t={int(time.time_ns() / 1e3) - 50_000}"},
    )
    if given == "header":
        headers["x-latency-budget-ms"] = "5000"
    else:
        body = b'{"candidates":["i1"],"latency_budget_ms":5000}'

    async def go() -> int:
        comes = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, comes.set)
        return await upload(app, body, comes, headers)

    assert asyncio.run(go()) == 200


async def upload(
    app: Application, body: bytes, comes: asyncio.Event, headers: dict[str, str] | None = None
) -> int:
    """The status of a request whose body comes with an event."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await comes.wait()
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    named = [(k.encode(), v.encode()) for k, v in (headers or {}).items()]
    await app({"type": "http", "method": "POST", "path": RANK, "headers": named}, receive, send)
    status: int = sent[0]["status"]
    return status


def test_a_request_waits_for_its_turn_until_its_deadline_at_most(engine: Engine) -> None:
    """On a busy machine even the student's answer, which is ready, may come too late to be sent."""
    app = make(engine, threshold=float("-inf"))

    async def go() -> Answer:
        await app._scheduler.turns.acquire(0.0, 1.0)  # held for ever
        headers = {"x-latency-budget-ms": "300"}
        waiting = request(app, "POST", RANK, b'{"candidates":["i1"]}', headers)
        return await asyncio.wait_for(waiting, 5)

    answer = asyncio.run(go())
    if answer.status != 504:
        assert (answer.json()["hard_granted"], answer.json()["degraded"]) == (0, "load")


def test_long_answers_are_rendered_in_time(engine: Engine) -> None:
    """The time that rendering takes is left by the ensemble, whatever the number of rows."""
    app = make(engine, threshold=float("-inf"))
    body = {"candidates": ["i1"] * 5000, "latency_budget_ms": 2000}
    for _ in range(5):
        assert call(app, "POST", RANK, body).status == 200
    now = engine.clock()
    small, large = app._gate.reply_cost.seconds(1, now), app._gate.reply_cost.seconds(5000, now)
    assert large > 10 * small


def test_a_client_that_leaves_frees_its_work(engine: Engine) -> None:
    app = make(engine, threshold=float("-inf"))

    async def go() -> Answer:
        turns = app._scheduler.turns
        await turns.acquire(0.0, 1.0)  # somebody else's ensemble work
        gone = asyncio.Event()
        waiting = asyncio.create_task(
            request(app, "POST", RANK, b'{"candidates":["i1","i2"]}', gone=gone)
        )
        await asyncio.sleep(0.01)
        gone.set()
        answer = await asyncio.wait_for(waiting, 5)
        turns.release()
        assert not turns.busy
        return answer

    answer = asyncio.run(go())
    assert answer.status == 499
    assert app.metrics.disconnected == 1
    assert app._gate.in_flight == 0
    assert not app._scheduler.promises


def test_a_body_that_does_not_come_in_time_is_a_504(engine: Engine) -> None:
    app = make(engine, latency_budget_ms=20)

    async def go() -> list[Any]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": RANK, "headers": []}
        await asyncio.wait_for(app(scope, receive, send), 10)
        return sent

    assert asyncio.run(go())[0]["status"] == 504
    assert app._gate.in_flight == 0


def test_a_standing_queue_is_refused_early_and_counted(run: Path) -> None:
    """Every request has waited 6 of its 8 s, and they come faster than one in that time."""
    engine = Engine.load(run)
    now = [100.0]
    engine.clock = lambda: now[0]
    app = make(engine, latency_budget_ms=8000)

    def ask(waited_ms: float) -> Answer:
        now[0] += 1e-3
        stamp = f"t={int(time.time_ns() / 1e3 - 1e3 * waited_ms)}"
        return call(app, "POST", RANK, {"candidates": ["i1"]}, x_request_start=stamp)

    assert {ask(6000).status for _ in range(200)} == {200}
    later = [ask(6000) for _ in range(50)]
    assert {answer.status for answer in later[5:]} == {503}
    assert later[-1].headers["retry-after"] == "1"
    assert "more requests arrive than can be answered" in later[-1].json()["error"]
    assert app.metrics.refused["shed_standing"] >= 45
    assert {ask(0).status for _ in range(250)} == {200}
    assert ask(6000).status == 200
