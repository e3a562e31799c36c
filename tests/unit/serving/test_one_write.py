"""Answers leave in one write, and nothing that was kept is lost."""

import asyncio
import http.client
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.config import HTTP_PROTOCOLS

from serving import one_write
from serving.http import Receive, Response, Scope, Send
from serving.one_write import OneWrite, OneWriteProtocol


class Wire:
    """A transport that remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append("close")

    def is_closing(self) -> bool:
        return "close" in self.told


def told(steps: Callable[[OneWrite], Awaitable[None]]) -> list[bytes | str]:
    wire = Wire()

    async def go() -> None:
        await steps(OneWrite(cast(asyncio.Transport, wire), asyncio.get_running_loop()))

    asyncio.run(go())
    return wire.told


def test_head_and_body_go_out_together_and_the_next_answer_apart() -> None:
    async def steps(transport: OneWrite) -> None:
        for data in (b"head", b"body", b"head2", b"body2"):
            transport.write(data)
        await asyncio.sleep(0)

    assert told(steps) == [b"headbody", b"head2body2"]


def test_what_nothing_follows_goes_out_in_the_same_turn() -> None:
    async def steps(transport: OneWrite) -> None:
        transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(0)
        transport.write(b"head")
        transport.write(b"body")

    assert told(steps) == [b"HTTP/1.1 100 Continue\r\n\r\n", b"headbody"]


def test_a_head_without_a_body_is_not_kept_for_ever() -> None:
    async def steps(transport: OneWrite) -> None:
        transport.write(b"head")
        transport.write(b"")
        await asyncio.sleep(0)

    assert told(steps) == [b"head"]


def test_closing_writes_what_was_kept() -> None:
    async def steps(transport: OneWrite) -> None:
        transport.write(b"head")
        transport.close()
        assert transport.is_closing()
        await asyncio.sleep(0)

    assert told(steps) == [b"head", "close"]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    await Response(200, b"<" + message["body"] + b">").send(send)


def test_uvicorn_answers_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HTTP_PROTOCOLS, "auto", HTTP_PROTOCOLS["auto"])
    writes: list[bytes] = []
    write = OneWrite._send

    def recording(self: OneWrite, data: bytes) -> None:
        writes.append(data)
        write(self, data)

    monkeypatch.setattr(OneWrite, "_send", recording)
    one_write.install()

    async def go() -> list[tuple[int, bytes]]:
        config = uvicorn.Config(application, lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            port = listener.getsockname()[1]
            try:
                return await asyncio.to_thread(ask, port)
            finally:
                assert config.http_protocol_class is OneWriteProtocol
                server.should_exit = True
                await serving

    answers = asyncio.run(go())
    assert answers == [(200, b"<a>"), (200, b"<b>"), (200, b"")]
    assert len(writes) == 3
    assert writes[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert writes[0].endswith(b"\r\n\r\n<a>")


def ask(port: int) -> list[tuple[int, bytes]]:
    """Three requests over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    answers: list[tuple[int, Any]] = []
    for method, body in (("POST", b"a"), ("POST", b"b"), ("HEAD", b"")):
        connection.request(method, "/", body)
        answer = connection.getresponse()
        answers.append((answer.status, answer.read()))
    connection.close()
    return answers
