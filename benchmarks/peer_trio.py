"""The static trio as a peer's worker runs it; imported in the peers' own environments.

The same bundle, request parser, encoder and ensemble graph as dynens serves, in one call: no
chunks, no budget, no admission. Settings come from the environment, because both peers start their
workers as fresh processes: DYNENS_BUNDLE, DYNENS_PATH, DYNENS_PORT and DYNENS_MAX_BATCH.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dynens.batch import Candidates, EncodedBatch, Rows
from dynens.config.serving import LimitsConfig
from dynens.engine import Engine, Scores
from dynens.graph import form_of
from serving.codecs import CODECS, Model

PATH = os.environ.get("DYNENS_PATH", "/v1/rank")
PORT = int(os.environ.get("DYNENS_PORT", "0"))
MAX_BATCH = int(os.environ.get("DYNENS_MAX_BATCH", "1"))
# Both peers wait at most this long for a batch to fill; their whole milliseconds allow no less.
MAX_WAIT_MS = 1


class Trio:
    """Raw requests to rendered answers."""

    def __init__(self) -> None:
        self.model = Model.of(Engine.load(Path(os.environ["DYNENS_BUNDLE"])))
        self.codec = CODECS[PATH]
        self.limits = LimitsConfig()
        # As dynens's replicas do: no full collections over what was just loaded.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    def answer(self, bodies: Sequence[bytes]) -> list[bytes]:
        """Answers to requests whose rows are scored together."""
        requests = [self.codec.parse(body, {}, self.model, self.limits) for body in bodies]
        batches = [self.codec.encode(request, self.model) for request in requests]
        probability = self._score(batches)
        answers, start = [], 0
        for request, batch in zip(requests, batches, strict=True):
            part = probability[start : start + len(batch)]
            start += len(batch)
            scores = Scores(part, np.ones(len(part), np.int32), len(part), len(part))
            report = {"hard_wanted": len(part), "hard_granted": len(part)}
            answers.append(self.codec.render(request, batch, scores, self.model, report).body)
        return answers

    def _score(self, batches: list[Rows]) -> np.ndarray:
        """One request as dynens would score it; several as rows that have nothing in common."""
        rows = batches[0]
        if len(batches) > 1:
            written = [b.encoded() if isinstance(b, Candidates) else b for b in batches]
            rows = EncodedBatch(
                np.concatenate([b.dense for b in written]), np.concatenate([b.ids for b in written])
            )
        no_logit = np.zeros(len(rows), np.float32)
        engine = self.model.engine
        form = form_of(engine.layout, rows)
        (probability,) = engine.ensemble.score(("trio_probability",), rows, form, no_logit)
        return probability
