"""Who gets in, and how much ensemble work each may do: pure decisions over plain numbers."""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """What to do with a request whose headers have just been read."""

    ACCEPT = "accept"
    FULL = "the queue is full"
    NO_TIME = "what is left of the budget does not cover the cheapest answer"
    SPENT = "the budget is spent"


def admit(
    in_flight: int, max_queued: int, seconds_left: float, cheapest_answer_s: float
) -> Verdict:
    """Accept, shed, or report that it is already too late.

    Args:
        in_flight: requests that this replica holds.
        max_queued: most that it may hold.
        seconds_left: time until the request's deadline.
        cheapest_answer_s: predicted time of the student's answer to a small request.
    """
    if seconds_left <= 0:
        return Verdict.SPENT
    if in_flight >= max_queued:
        return Verdict.FULL
    if seconds_left < cheapest_answer_s:
        return Verdict.NO_TIME
    return Verdict.ACCEPT


def ensemble_seconds(seconds_left: float, backlog_s: float) -> float:
    """How much ensemble time a request may use when others are waiting for theirs.

    With nothing waiting it is everything that is left. The allowance

        left · (1 − backlog / left)²

    falls smoothly to zero as the backlog approaches the deadline, so that under load every
    request's hard share shrinks a little instead of some requests losing theirs altogether,
    and the queue settles below the budget rather than at it.

    Args:
        seconds_left: time until the request's deadline.
        backlog_s: ensemble work already promised to requests ahead of it.
    """
    if backlog_s <= 0:
        return seconds_left
    if backlog_s >= seconds_left:
        return 0.0
    return seconds_left * (1.0 - backlog_s / seconds_left) ** 2
