"""Who gets in, and how much ensemble work each may do: pure decisions over plain numbers."""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """What to do with a request whose headers have just been read."""

    ACCEPT = "accept"
    FULL = "the queue is full"
    NO_TIME = "what is left of the budget does not cover the cheapest answer"
    STANDING = "requests keep queueing for a good part of their budget"
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


def ensemble_seconds(seconds_left: float, backlog_s: float, pressure: float = 0.0) -> float:
    """How much ensemble time a request may use when others are waiting for theirs.

    With nothing waiting it is everything that is left. The allowance

        left · (1 − backlog / left)² · (1 − pressure)²

    falls smoothly to zero as the backlog approaches the deadline, so that under load every
    request's hard share shrinks a little instead of some requests losing theirs altogether,
    and the queue settles below the budget rather than at it.

    Args:
        seconds_left: time until the request's deadline.
        backlog_s: ensemble work already promised to requests ahead of it.
        pressure: of requests that have not come in yet (`StandingQueue.pressure`), 0 to 1.
    """
    if backlog_s >= seconds_left > 0:
        return 0.0
    share = max(backlog_s, 0.0) / seconds_left if seconds_left > 0 else 0.0
    return seconds_left * ((1.0 - share) * (1.0 - pressure)) ** 2


class StandingQueue:
    """Keeps a queue that never empties short, so that those who get in are answered in time.

    First come, first served answers everyone at the end of their budget once more requests arrive
    than can be answered, and the way back makes them late. A burst is another matter: its queue
    drains, so that in any interval many requests waited little. When nearly all requests of an
    interval waited over a quarter of their budget, those that do are refused, until an interval
    passes with hardly any. A machine that delays every request, with nobody behind it, has no
    queue: by Little's law the waits of requests that arrive at a rate λ mean λ · wait of them
    waiting at a time, and fewer than two are none. Shares of requests and not extremes decide, so
    that a few clients with budgets of their own change nothing for the others. The first such
    interval takes the hard rows' time away (`pressure`), the next one begins to refuse.

    Attributes:
        pressure: 0 to 1, what the hard share shrinks by before it comes to that: the mean wait as a
            share of a quarter of the budget, times the number waiting over two, each at most 1; the
            lesser value of two intervals, since a burst fills one. 1 where the queue stands; it
            falls by no more than a third per tenth of a second.

    References:
        Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012 (standing queues);
        Maurer, "Fail at Scale", ACM Queue 13(8), 2015 (the same for requests of servers).
    """

    def __init__(self) -> None:
        self.pressure = 0.0
        self._latest = 0.0
        self._stands = False
        self._begin(float("-inf"))

    def _begin(self, now_s: float) -> None:
        self._began_s = now_s
        self._requests = 0
        self._over = 0
        self._over_waits_s = 0.0
        self._waits_s = 0.0
        self._shares = 0.0

    def observe(self, wait_s: float, budget_s: float, now_s: float) -> None:
        """A request arrives that waited `wait_s` already."""
        elapsed = now_s - self._began_s
        if elapsed >= _INTERVAL_S:
            self._conclude(elapsed)
            self._begin(now_s)
        self._requests += 1
        self._waits_s += wait_s
        self._shares += min(wait_s / budget_s, _WAIT_SHARE)
        if wait_s > _WAIT_SHARE * budget_s:
            self._over += 1
            self._over_waits_s += wait_s

    def _conclude(self, elapsed_s: float) -> None:
        """Draw the conclusions of an interval."""
        waiting = self._waits_s / elapsed_s
        share = self._shares / max(self._requests, 1)
        latest = share / _WAIT_SHARE * min(waiting / _FEWEST_WAITING, 1)
        stood = self._has_stood(elapsed_s)
        self._stands = stood and self.pressure == 1.0
        pressure = 1.0 if stood else min(latest, self._latest)
        faded = self.pressure * _DECAY ** (elapsed_s / _INTERVAL_S)
        self.pressure, self._latest = max(pressure, faded), latest

    def _has_stood(self, elapsed_s: float) -> bool:
        """Whether the interval that ends was one of a standing queue."""
        share = _STILL_OVER if self._stands else _NEARLY_ALL
        if not self._over or self._over < share * self._requests:
            return False
        waiting = self._requests / elapsed_s * self._over_waits_s / self._over
        return waiting >= _FEWEST_WAITING

    def refuses(self, wait_s: float, budget_s: float) -> bool:
        """Whether a request that waited this long is turned away."""
        return self._stands and wait_s > _WAIT_SHARE * budget_s


_INTERVAL_S = 0.1
# Of an interval's requests: so many over a quarter of their budget begin it, so many keep it up.
_NEARLY_ALL, _STILL_OVER = 0.9, 0.05
_DECAY = 0.67
_WAIT_SHARE = 0.25
_FEWEST_WAITING = 2.0
