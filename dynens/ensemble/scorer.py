"""Scoring encoded rows with exported learners: the pool as evaluation and distillation see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from dynens.batch import EncodedBatch, FeatureLayout, as_one_request
from dynens.ensemble.blend import Logits
from dynens.run import intact
from dynens.session import GraphSession
from dynens.timing import in_turns, median_seconds, other_rows

_WARM_UP_REPEATS = 5


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

        Every repeat takes other rows (`other_rows`), and the learners take turns on them. With a
        `layout` they are made candidates of one request (`as_one_request`).
        """
        shares = layout is not None and layout.has_context

        def works(repeat: int) -> dict[str, Callable[[], object]]:
            block = other_rows(batch, repeat * rows, rows)
            if layout is not None:
                block = as_one_request(block, layout)
            return {
                name: partial(session.run, ("logit",), block, shares_context=shares)
                for name, session in self._sessions.items()
            }

        seconds = median_seconds(in_turns(works, repeats, warm_up=_WARM_UP_REPEATS))
        return {name: seconds[name] / rows * 1e6 for name in self.names}
