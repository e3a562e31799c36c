"""How a server is asked from the same machine: never through a proxy of the environment."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import time
import urllib.request
from typing import Any

READY_PATH = "/v2/health/ready"
_TRY_S, _PAUSE_S = 5.0, 0.05
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def open_directly(asked: str | urllib.request.Request, timeout_s: float) -> Any:
    """The answer to a request, as `urlopen` gives it, whatever `http_proxy` says.

    Raises:
        OSError: nobody answers in time, or with an error (`urllib.error.HTTPError`).
        http.client.HTTPException: what comes is no HTTP.
    """
    return _DIRECT.open(asked, timeout=timeout_s)


def wait_ready(
    asked: str | urllib.request.Request,
    process: subprocess.Popen[Any] | None = None,
    *,
    timeout_s: float = 120.0,
) -> bool:
    """Ask again and again; whether the answer was 200 before the time was up.

    Args:
        asked: a page, or a request to send.
        process: the server's, if it is this one's child: when it ends, so does the waiting.
        timeout_s: how long.
    """
    give_up = time.monotonic() + timeout_s
    while process is None or process.poll() is None:
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            open_directly(asked, _TRY_S) as answer,
        ):
            if answer.status == 200:
                return True
        if time.monotonic() > give_up:
            break
        time.sleep(_PAUSE_S)
    return False
