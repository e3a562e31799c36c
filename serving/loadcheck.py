"""A look at a server before it is loaded: does it answer, and understand what it will be sent?"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path

from dynens.errors import BadInputError
from serving.replay import open_run_data, request_bodies

_TIMEOUT_S = 10.0


def check_server(url: str, run: Path, rows_per_request: int) -> None:
    """Send one request of the load, to see that somebody answers and understands it.

    Raises:
        BadInputError: nobody does, or the request is refused for what it is.
    """
    path, bodies = request_bodies(open_run_data(run), rows_per_request, 1)
    address = url.rstrip("/") + path
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no http_proxy
    headers = {"Content-Type": "application/json"}
    try:
        request = urllib.request.Request(address, bodies[0], headers)
        with direct.open(request, timeout=_TIMEOUT_S):
            pass
    except urllib.error.HTTPError as e:
        if e.code < 500:  # a server under load may well answer 503 or 504
            raise BadInputError(
                f"{address} answers {e.code} ({_sentence(e.read())}); give the address of a server "
                f"of {run}."
            ) from e
    except (OSError, ValueError, http.client.HTTPException) as e:
        reason = getattr(e, "reason", None) or e
        raise BadInputError(
            f"nothing answers at {url} ({reason}); start `dynens serve {run}`, or give its address "
            "as http://host:port."
        ) from e


def _sentence(body: bytes) -> str:
    """What a server says of an error, if it says it as this one does."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
