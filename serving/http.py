"""The little HTTP that the application needs on top of raw ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from serving.errors import ClientGoneError, RequestError

Scope = Mapping[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON_TYPE = b"application/json"
BINARY_TYPE = b"application/octet-stream"


@dataclass(frozen=True)
class Response:
    """A complete answer."""

    status: int
    body: bytes
    content_type: bytes = JSON_TYPE
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def json(cls, document: Any) -> Response:
        return cls(200, orjson.dumps(document))

    @classmethod
    def error(cls, error: RequestError) -> Response:
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if error.header is not None:
            name, value = error.header
            headers = ((name.lower().encode(), value.encode()),)
        return cls(error.status, orjson.dumps({"error": error.message}), headers=headers)

    async def send(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": [
                    (b"content-type", self.content_type),
                    (b"content-length", str(len(self.body)).encode()),
                    *self.headers,
                ],
            }
        )
        await send({"type": "http.response.body", "body": self.body})


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        RequestError: 413 beyond `max_bytes`, 415 for an encoded body.
        ClientGoneError: the client left before it was complete.
    """
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and len(declared) <= 18 and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        raise RequestError(415, "the body is compressed; send it as it is", reason="bad_request")
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
    return b"".join(parts)


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(
        413, f"the body is larger than the {max_bytes} bytes allowed", reason="bad_request"
    )


async def lifespan(receive: Receive, send: Send) -> None:
    """Answer the server's start and stop events."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
