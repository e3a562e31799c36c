"""An answer leaves in one piece.

uvicorn writes the head of an answer and its body apart, and uvloop hands each to the kernel at
once: two system calls, and everybody on the way (HAProxy, the client) is woken twice.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def install() -> None:
    """Have uvicorn servers that start later in this process, Ray Serve's too, answer in one piece.

    Ray Serve makes its server with uvicorn's default protocol and has no setting for another.
    """
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{OneWriteProtocol.__name__}"


class OneWriteProtocol(HttpToolsProtocol):
    """uvicorn's protocol, writing through `OneWrite`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, OneWrite(transport, self.loop)))


class OneWrite:
    """A transport that keeps a write for the next one to join.

    Where none follows in the same turn of the loop, it goes out alone.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._kept = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keep `data`, or write what was kept together with it."""
        if self._kept:
            self._send(self._kept + data)
        else:
            self._kept = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Write what was kept, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._kept:
            self._send(self._kept)

    def _send(self, data: bytes) -> None:
        self._kept = b""
        self._transport.write(data)
