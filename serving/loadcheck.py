"""A look at a server before it is loaded: does it answer, and understand what it will be sent?"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from dynens.errors import BadInputError
from serving.client import open_directly
from serving.environment import bearer_token
from serving.replay import open_run_data, request_bodies

_TIMEOUT_S = 10.0
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def bearer_header(variable: str | None) -> dict[str, str]:
    """The header with the token that an environment variable holds; none without its name.

    Raises:
        BadInputError: the variable is empty.
    """
    token = bearer_token(variable)
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def check_server(
    url: str, run: Path, rows_per_request: int, headers: Mapping[str, str] = NO_HEADERS
) -> None:
    """Send one request of the load, to see that somebody answers and understands it.

    Args:
        url: base address of the server.
        run: the run whose test rows are sent.
        rows_per_request: candidates of the request.
        headers: sent beside the content type.

    Raises:
        BadInputError: nobody does, or the request is refused for what it is.
    """
    path, bodies = request_bodies(open_run_data(run), rows_per_request, 1)
    address = url.rstrip("/") + path
    try:
        request = urllib.request.Request(
            address, bodies[0], {"Content-Type": "application/json", **headers}
        )
        with open_directly(request, _TIMEOUT_S):
            pass
    except urllib.error.HTTPError as e:
        if e.code < 500:  # a server under load may well answer 503 or 504
            remedy = _REMEDIES.get(e.code, f"give the address of a server of {run}")
            raise BadInputError(
                f"{address} answers {e.code} ({_sentence(e.read())}); {remedy}."
            ) from e
    except (OSError, ValueError, http.client.HTTPException) as e:
        reason = getattr(e, "reason", None) or e
        raise BadInputError(
            f"nothing answers at {url} ({reason}); start `dynens serve {run}`, or give its address "
            "as http://host:port."
        ) from e


_REMEDIES = {
    401: "name the variable that holds its token as --bearer-token-env",
    413: "ask for fewer --rows-per-request",
}


def _sentence(body: bytes) -> str:
    """What a server says of an error, if it says it as this one does."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
