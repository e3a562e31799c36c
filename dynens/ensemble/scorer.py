"""Scoring encoded rows with exported learners: the pool as evaluation and distillation see it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dynens.batch import EncodedBatch, FeatureLayout, as_one_request
from dynens.ensemble.blend import Logits
from dynens.run import intact
from dynens.session import GraphSession


def open_session(path: Path, num_threads: int = 1) -> GraphSession:
    """A session of a file of a run.

    Raises:
        BundleError: the file is missing or damaged.
    """
    with intact(path):
        return GraphSession(path, num_threads)


class PoolScorer:
    """Logits of several exported learners.

    Args:
        paths: ONNX file of every learner (inputs as exported, output `logit`).
        num_threads: ONNX Runtime threads per session.
    """

    def __init__(self, paths: Mapping[str, Path], num_threads: int = 1) -> None:
        self.names = tuple(paths)
        self._sessions = {name: open_session(path, num_threads) for name, path in paths.items()}

    def logits(self, batch: EncodedBatch) -> dict[str, Logits]:
        """Logits (B,) float32 of every learner."""
        return self.logits_of(self.names, batch)

    def logits_of(
        self, names: Sequence[str], batch: EncodedBatch, *, shares_context: bool = False
    ) -> dict[str, Logits]:
        """Logits (B,) float32 of the named learners; `shares_context` as in `GraphSession.run`."""
        return {
            name: self._sessions[name].run_all(("logit",), batch, shares_context=shares_context)[0]
            for name in names
        }

    def cost_us_per_row(
        self,
        batch: EncodedBatch,
        *,
        rows: int = 100,
        repeats: int = 50,
        layout: FeatureLayout | None = None,
    ) -> dict[str, float]:
        """Median time of `rows` rows of `batch` per learner, divided by `rows`, in µs.

        With a `layout` the rows are made candidates of one request (`as_one_request`). The learners
        take turns, so a slow moment of the machine hits all of them alike.
        """
        block = batch.take(slice(0, rows))
        if layout is not None:
            block = as_one_request(block, layout)
        shares = layout is not None and layout.has_context
        times: dict[str, list[float]] = {name: [] for name in self.names}
        for repeat in range(repeats + 5):
            for name, session in self._sessions.items():
                start = time.perf_counter()
                session.run(("logit",), block, shares_context=shares)
                if repeat >= 5:
                    times[name].append(time.perf_counter() - start)
        count = min(rows, len(batch))
        return {name: float(np.median(t)) / count * 1e6 for name, t in times.items()}
