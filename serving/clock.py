"""When a request arrived at the machine, and the time it has."""

from __future__ import annotations

import math
from collections.abc import Mapping

from serving.errors import bad_request

ARRIVAL_HEADER = b"x-request-start"
BUDGET_HEADER = b"x-latency-budget-ms"

# Stamps older than this come from a clock that was set, not from a queue.
_MAX_QUEUE_S = 600.0


def queue_seconds(stamp: bytes | None, now_epoch_s: float) -> float:
    """How long ago HAProxy saw the request.

    Args:
        stamp: value of `x-request-start`, `t=<microseconds since the epoch>`, or None when no
            HAProxy stamps requests (then queueing before this process is not seen).
        now_epoch_s: wall-clock time in seconds since the epoch.

    Returns:
        Seconds in [0, 600]; 0 for a stamp that makes no sense.
    """
    if stamp is None or not stamp.startswith(b"t="):
        return 0.0
    digits = stamp[2:]
    if not digits.isdigit() or len(digits) > 18:
        return 0.0
    age = now_epoch_s - int(digits) / 1e6
    return age if 0.0 < age < _MAX_QUEUE_S else 0.0


def budget_ms(value: object, default_ms: float, max_ms: float) -> float:
    """The budget a client asked for, or the default.

    Args:
        value: from the header (bytes) or a request parameter (a number or text); None: not given.
        default_ms: budget of a request that names none.
        max_ms: largest budget allowed.

    Raises:
        RequestError: 400 when it is not a number in (0, max_ms].
    """
    if value is None:
        return default_ms
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError
        given = float(value)
    except (ValueError, OverflowError):
        given = math.nan
    if not 0.0 < given <= max_ms:
        raise bad_request(
            f"the latency budget is {str(value)[:40]!r}; it must be a number of milliseconds "
            f"above 0 and at most {max_ms:g}"
        )
    return given


def header_map(headers: list[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
    """Headers by (lower-case) name; of repeated ones the last counts."""
    return dict(headers)
