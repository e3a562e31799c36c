"""Scoring encoded rows with exported learners: the pool as evaluation and distillation see it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from dynens.batch import EncodedBatch, FeatureLayout, as_one_request, graph_feeds
from dynens.ensemble.blend import Logits
from dynens.run import intact
from dynens.session import session_of

CHUNK_ROWS = 4096


def open_session(path: Path, num_threads: int = 1) -> ort.InferenceSession:
    """`session_of` a file of a run.

    Raises:
        BundleError: the file is missing or damaged.
    """
    with intact(path):
        return session_of(path, num_threads)


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
        """Logits (B,) float32 of the named learners; `shares_context` as in `graph_feeds`."""
        if not len(batch):
            return dict.fromkeys(names, np.empty(0, np.float32))
        sessions = {name: self._sessions[name] for name in names}
        return {
            name: run_graph(session, ("logit",), batch, shares_context=shares_context)[0]
            for name, session in sessions.items()
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
        feeds = {
            name: _feed(session, block, shares_context=shares)
            for name, session in self._sessions.items()
        }
        times: dict[str, list[float]] = {name: [] for name in self.names}
        for repeat in range(repeats + 5):
            for name, session in self._sessions.items():
                start = time.perf_counter()
                session.run(["logit"], feeds[name])
                if repeat >= 5:
                    times[name].append(time.perf_counter() - start)
        count = min(rows, len(batch))
        return {name: float(np.median(t)) / count * 1e6 for name, t in times.items()}


def run_graph(
    session: ort.InferenceSession,
    outputs: Sequence[str],
    batch: EncodedBatch,
    *,
    shares_context: bool = False,
) -> list[Logits]:
    """The named outputs of every row of `batch` (at least one row), chunk by chunk."""
    chunks = (
        batch.take(slice(start, start + CHUNK_ROWS)) for start in range(0, len(batch), CHUNK_ROWS)
    )
    parts = [
        session.run(list(outputs), _feed(session, chunk, shares_context=shares_context))
        for chunk in chunks
    ]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def _feed(
    session: ort.InferenceSession, batch: EncodedBatch, *, shares_context: bool = False
) -> dict[str, Any]:
    names = [entry.name for entry in session.get_inputs()]
    return graph_feeds(batch, names, shares_context=shares_context)
