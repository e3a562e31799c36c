"""What a latency budget buys: pure decisions over plain numbers.

The cost of ensemble work on k rows is modelled as

    t(k) = s · (a + b · k)

with `a` and `b` fitted at warm-up on this machine and the slowdown `s` updated by every chunk that
runs. Nothing here reads a clock: the caller says what time it is, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynens.batch import FloatArray

# One slow chunk may be a preemption and not a trend: it moves the slowdown at most by this factor.
_MAX_STEP_RATIO = 3.0
# Slowness is believed at once, recovery is earned over several chunks.
_RISE, _FALL = 0.5, 0.15
# With nothing observed, a slowdown fades by half in this time, so that a machine that was slow
# for a while gets its ensemble back even when no row fits the pessimistic prediction any more.
_HALF_LIFE_S = 1.0
# After this long without a chunk the slowdown is a guess again: the next chunk is a small probe.
_STALE_S = 2.0
_PROBE_ROWS = 8
# A slowdown below this is called noise.
_SLOW = 1.5
# Cold caches and a shared core slow calls down this much; smaller chunks would only add calls.
_ORDINARY_SLOWDOWN = 3.0
_MIN_SECONDS = 1e-9


@dataclass
class CostModel:
    """Predicted seconds for k rows, learned on this machine.

    Attributes:
        fixed_s: a, seconds per call.
        per_row_s: b, seconds per row.
        slowdown: s, ratio of recent chunks to the fit (1 = as at warm-up).
        updated_s: clock time of the last observation.
    """

    fixed_s: float
    per_row_s: float
    slowdown: float = 1.0
    updated_s: float = float("-inf")

    @classmethod
    def fit(cls, rows: Sequence[int], seconds: Sequence[float]) -> CostModel:
        """Least squares of seconds over rows, weighted by 1 / seconds; both terms kept ≥ 0.

        Relative errors count, so the small batches that dominate routing are fitted as well as
        the large ones.
        """
        k = np.asarray(rows, dtype=np.float64)
        t = np.maximum(np.asarray(seconds, dtype=np.float64), _MIN_SECONDS)
        design = np.stack([np.ones_like(k), k], axis=1) / t[:, None]
        fixed, per_row = np.linalg.lstsq(design, np.ones_like(t), rcond=None)[0]
        if per_row <= 0:
            return cls(float(np.median(t)), _MIN_SECONDS)
        if fixed < 0:
            fixed, per_row = 0.0, float(np.mean(t / k))
        return cls(float(fixed), float(per_row))

    def slowdown_at(self, now_s: float) -> float:
        """The slowdown believed at `now_s`: fading towards 1 since the last observation."""
        if self.slowdown <= 1.0:
            return self.slowdown
        age = max(now_s - self.updated_s, 0.0)
        return 1.0 + (self.slowdown - 1.0) * math.exp2(-age / _HALF_LIFE_S)

    def seconds(self, rows: int, now_s: float) -> float:
        """Predicted seconds for `rows` rows in one call, without margin."""
        return self.slowdown_at(now_s) * (self.fixed_s + self.per_row_s * rows)

    def rows_within(self, seconds: float, now_s: float, margin: float) -> int:
        """Most rows whose predicted cost, enlarged by `margin`, fits into `seconds`."""
        usable = seconds / ((1.0 + margin) * self.slowdown_at(now_s)) - self.fixed_s
        return max(int(usable / self.per_row_s), 0)

    def observe(self, rows: int, seconds: float, now_s: float) -> None:
        """Learn from a call on `rows` rows that took `seconds` and ended at `now_s`."""
        believed = self.slowdown_at(now_s)
        ratio = max(seconds, _MIN_SECONDS) / (self.fixed_s + self.per_row_s * rows)
        ratio = min(ratio, believed * _MAX_STEP_RATIO)
        rate = _RISE if ratio > believed else _FALL
        self.slowdown = believed + rate * (ratio - believed)
        self.updated_s = now_s

    def is_probe(self, now_s: float) -> bool:
        """True when the machine was slow when last seen and that is long ago."""
        return self.slowdown > _SLOW and now_s - self.updated_s > _STALE_S


def hardest_first(difficulty: FloatArray, threshold: float) -> npt.NDArray[np.int64]:
    """Indices of the rows with difficulty > threshold, hardest first, ties in row order.

    Args:
        difficulty: (N,) float, higher = harder.
        threshold: rows above it are hard.

    Returns:
        (K,) int64 indices.
    """
    (hard,) = (difficulty > threshold).nonzero()
    return hard[(-difficulty[hard]).argsort(kind="stable")] if len(hard) else hard


def next_chunk(
    rows_left: int,
    seconds_left: float | None,
    cost: CostModel,
    now_s: float,
    *,
    margin: float,
    chunk_s: float,
    max_rows: int,
) -> int:
    """How many of the remaining hard rows to run now; 0 = stop, nothing more fits.

    Args:
        rows_left: hard rows not yet run.
        seconds_left: time until the deadline, or None for no deadline.
        cost: prediction of the ensemble's time.
        now_s: clock time, for the age of the prediction.
        margin: share added to every prediction.
        chunk_s: aim for chunks of this duration at warm-up speed (one row at least); they shrink
            only where the machine is slower than `_ORDINARY_SLOWDOWN`.
        max_rows: rows of one chunk at most.
    """
    if seconds_left is None:
        return min(rows_left, max_rows)
    affordable = cost.rows_within(seconds_left, now_s, margin)
    if affordable == 0:
        return 0
    ordinary = min(max(cost.slowdown_at(now_s), 1.0), _ORDINARY_SLOWDOWN)
    comfortable = max(cost.rows_within(ordinary * chunk_s, now_s, 0.0), 1)
    chunk = min(rows_left, affordable, comfortable, max_rows)
    return min(chunk, _PROBE_ROWS) if cost.is_probe(now_s) else chunk
