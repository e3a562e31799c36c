"""A Ray Serve application that answers at once: the floor under every latency figure.

It reads the request's body and returns a constant, so what a client measures with it is HAProxy,
Ray Serve, the HTTP library and the client itself.
"""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve.schema import LoggingConfig

from serving import one_write

_BODY = b'{"ok":true}'
_LENGTH = str(len(_BODY)).encode()


async def noop_app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Read everything, say nothing."""
    if scope["type"] != "http":
        return
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
    # A fresh list: Ray's middleware adds a header to it.
    headers = [(b"content-type", b"application/json"), (b"content-length", _LENGTH)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})


@serve.deployment(
    name="noop",
    max_ongoing_requests=10_000,
    ray_actor_options={"num_cpus": 0.1},
    logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
)
@serve.ingress()
class Noop:
    """The deployment around `noop_app`."""

    def __init__(self) -> None:
        one_write.install()

    def __serve_build_asgi_app__(self) -> Any:
        return noop_app
