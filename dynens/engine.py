"""The scoring engine: a bundle's graphs run inside a latency budget. No torch, no Ray.

The student scores every row, which gives the answer of last resort and each row's difficulty. What
is left of the budget goes to the ensemble, hardest rows first, in chunks with a look at the clock
before each. `Engine.steps` is the work as a generator that pauses between chunks, so that an event
loop can serve other requests in between; `Engine.score` runs it to the end.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dynens.batch import FeatureLayout, FloatArray, IntArray, Rows, as_one_request
from dynens.budget import CostModel, hardest_first, next_chunk
from dynens.bundle import ENSEMBLE, GRAPH_OUTPUTS, STUDENT, Bundle, load_bundle
from dynens.config.serving import EngineConfig, System
from dynens.data.encoding.encoders import RowEncoder
from dynens.errors import BundleError
from dynens.graph import Form, Graph, form_of, typical_candidates, typical_rows
from dynens.session import joined
from dynens.timing import Clock, in_turns, median_seconds

_STUDENT_CHUNK_ROWS = 2048
_STUDENT_OUTPUTS, _ENSEMBLE_OUTPUTS = GRAPH_OUTPUTS[STUDENT], GRAPH_OUTPUTS[ENSEMBLE]
# Why fewer rows were granted than wanted.
DEGRADED_BUDGET = "budget"  # the request's own time did not suffice
DEGRADED_LOAD = "load"  # the caller allowed fewer, because other requests need the time


class BudgetSpentError(Exception):
    """The deadline passed before every row had an answer."""


class Pause(enum.Enum):
    """Where `Engine.steps` stands when it yields."""

    ENSEMBLE = "ensemble work is about to begin"
    CHUNK = "between two chunks"


@dataclass(frozen=True)
class Step:
    """A pause of `Engine.steps`.

    Attributes:
        pause: where the work stands.
        rows_left: rows that still want the ensemble (at `Pause.ENSEMBLE`: all that do).
        excess: these rows take the ensemble this many times what its cost model says.
    """

    pause: Pause
    rows_left: int
    excess: float = 1.0


@dataclass(frozen=True)
class Scores:
    """Answers for N rows.

    Attributes:
        probability: (N,) float32 in [0, 1], on one calibrated scale whatever the route.
        route: (N,) int32, what answered: 0 the student, 1 the ensemble.
        hard_wanted: rows that the router wanted to send to the ensemble.
        hard_granted: rows that the ensemble answered.
        degraded: None, or why fewer rows were granted than wanted.
    """

    probability: FloatArray
    route: IntArray
    hard_wanted: int
    hard_granted: int
    degraded: str | None = None


# At `Pause.ENSEMBLE` the caller may send how many rows it allows, at `Pause.CHUNK` that no more may
# follow (0); None allows all.
Steps = Generator[Step, int | None, Scores]


class Engine:
    """A loaded, warmed-up bundle. Not for use by several threads at once."""

    def __init__(
        self,
        bundle: Bundle,
        config: EngineConfig,
        encoder: RowEncoder,
        *,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.bundle = bundle
        self.config = config
        self.encoder = encoder
        self.clock = clock
        self.student = Graph(bundle.student, bundle.rank_student, _STUDENT_OUTPUTS, config)
        self.ensemble = Graph(bundle.ensemble, bundle.rank_ensemble, _ENSEMBLE_OUTPUTS, config)
        self.student_cost = CostModel(1e-4, 1e-6)
        self.ensemble_cost = CostModel(1e-3, 1e-5)
        # Both speak of rows in the cheapest form there is; others take this many times as long:
        # the student's and the ensemble's.
        self._excess = dict.fromkeys(Form, (1.0, 1.0))

    @classmethod
    def load(
        cls,
        bundle_dir: Path,
        config: EngineConfig | None = None,
        *,
        verify: bool = True,
        clock: Clock = time.perf_counter,
    ) -> Engine:
        """Open a bundle (or a run directory that holds one) and warm it up.

        Raises:
            BundleError: missing, corrupt or incompatible.
        """
        bundle = load_bundle(bundle_dir, verify=verify)
        try:
            encoder = RowEncoder.load(bundle.encoder)
        except (OSError, ValueError, KeyError) as e:
            raise BundleError(
                f"the encoder of {bundle.directory} cannot be read ({e}); "
                "write it again with `dynens export RUN`."
            ) from e
        if encoder.layout != bundle.layout:
            raise BundleError(
                f"the encoder of {bundle.directory} has another layout than its manifest; "
                "write it again with `dynens export RUN`."
            )
        engine = cls(bundle, config or EngineConfig(), encoder, clock=clock)
        try:
            engine.warm_up()
        except BundleError:
            raise
        except Exception as e:  # onnxruntime raises its own unrelated classes
            raise BundleError(
                f"the graphs of {bundle.directory} do not run on rows of its layout "
                f"({' '.join(str(e).split())[:200]}); write it again with `dynens export RUN`."
            ) from e
        return engine

    @property
    def layout(self) -> FeatureLayout:
        return self.bundle.layout

    @property
    def threshold(self) -> float:
        return self.bundle.manifest.router.threshold

    def encode_rank(
        self, user_id: Any, context: Mapping[str, Any], candidates: Sequence[Any]
    ) -> Rows:
        """One user against many items; see `RowEncoder.encode_rank`.

        As `Candidates` where the student takes them and all items are in the bundle's table.
        """
        rows = None
        if self.student.ranks:
            rows = self.encoder.candidates(user_id, context, candidates)
        return self.encoder.encode_rank(user_id, context, candidates) if rows is None else rows

    def warm_up(self) -> None:
        """Run everything once, and both graphs on several batch sizes to fit their cost models."""
        self._warm_encoder()
        sizes = self.config.warm_up_rows
        forms = [Form.CANDIDATES] if self.student.ranks else []
        forms += [Form.SHARED, Form.ANY] if self.layout.has_context else [Form.ANY]
        seconds = [self._measure(rows, forms[0]) for rows in sizes]
        student_s, ensemble_s = zip(*seconds, strict=True)
        self.student_cost = CostModel.fit(sizes, student_s)
        self.ensemble_cost = CostModel.fit(sizes, ensemble_s)
        for form in forms[1:]:
            student, ensemble = self._measure(sizes[-1], form)
            excess = _excess(student, student_s[-1]), _excess(ensemble, ensemble_s[-1])
            self._excess[form] = excess

    def _measure(self, rows: int, form: Form) -> tuple[float, float]:
        """Median seconds of the student and of the ensemble on typical rows."""
        table = self.encoder.item_table() if form is Form.CANDIDATES else None
        batch: Rows
        if table is None:
            batch = typical_rows(self.layout, rows)
            batch = as_one_request(batch, self.layout) if form is Form.SHARED else batch
        else:
            batch = typical_candidates(self.layout, table, rows)
        logit = np.zeros(rows, np.float32)
        works = {
            STUDENT: partial(self.student.score, _STUDENT_OUTPUTS, batch, form),
            ENSEMBLE: partial(self.ensemble.score, ("probability",), batch, form, logit),
        }
        repeats = self.config.warm_up_repeats
        seconds = median_seconds(in_turns(lambda _: works, repeats, warm_up=1, clock=self.clock))
        return seconds[STUDENT], seconds[ENSEMBLE]

    def _warm_encoder(self) -> None:
        """Have look-up tables built that the encoder builds when first asked."""
        kinds = {f.name: f.kind for f in self.encoder.input_fields}
        # Texts and integers are looked up in tables of their own; either is a date as well.
        for example in ("2000-01-01", 0):
            values = {"categorical": example, "multi_valued": [example], "numeric": 0}
            self.encoder.encode_columns({n: [values.get(kind)] for n, kind in kinds.items()})
            if self.encoder.has_item_entity:
                self.encode_rank(example, {}, [example])

    def score(
        self,
        batch: Rows,
        *,
        system: System = "dynamic",
        deadline_s: float | None = None,
        threshold: float | None = None,
    ) -> Scores:
        """Score rows at once; see `steps`."""
        steps = self.steps(batch, system=system, deadline_s=deadline_s, threshold=threshold)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                scores: Scores = stop.value
                return scores

    def steps(
        self,
        batch: Rows,
        *,
        system: System = "dynamic",
        deadline_s: float | None = None,
        threshold: float | None = None,
    ) -> Steps:
        """Score rows, pausing between chunks.

        Args:
            batch: N encoded rows, or candidates.
            system: "dynamic" routes; "student" never asks the ensemble; "ensemble" asks the
                members alone for every row; "ensemble_with_student" sends every row to the hard
                route, student's voice included.
            deadline_s: reading of the engine's clock by which the scores must be complete, or
                None for no limit.
            threshold: overrides the bundle's (dynamic only).

        Raises:
            BudgetSpentError: rows would be left without any answer at the deadline. The
                dynamic system always falls back on the student for hard rows; the static ones
                cannot, by their definition.
        """
        if system in ("dynamic", "student"):
            return self._student_first(batch, system, deadline_s, threshold)
        return self._every_row(batch, system, deadline_s)

    def _student_first(
        self,
        batch: Rows,
        system: System,
        deadline_s: float | None,
        threshold: float | None,
    ) -> Steps:
        form = form_of(self.layout, batch)
        logit, probability, difficulty = yield from self._student_chunks(batch, form, deadline_s)
        route = np.zeros(len(batch), np.int32)
        if system == "student":
            return Scores(probability, route, 0, 0)
        limit = self.threshold if threshold is None else threshold
        hard = hardest_first(difficulty, limit)
        if not len(hard):
            return Scores(probability, route, 0, 0)
        allowed = yield Step(Pause.ENSEMBLE, len(hard), self._excess[form][1])
        limit_rows = len(hard) if allowed is None else min(allowed, len(hard))
        granted = 0
        while granted < limit_rows:
            rows = self._next_chunk(limit_rows - granted, form, deadline_s)
            if not rows:
                break
            chosen = hard[granted : granted + rows]
            probability[chosen] = self._run_ensemble("probability", batch, chosen, logit, form)
            route[chosen] = 1
            granted += rows
            if granted < limit_rows and (yield Step(Pause.CHUNK, limit_rows - granted)) == 0:
                break
        degraded = None
        if granted < len(hard):
            degraded = DEGRADED_BUDGET if granted < limit_rows else DEGRADED_LOAD
        return Scores(probability, route, len(hard), granted, degraded)

    def _student_chunks(
        self, batch: Rows, form: Form, deadline_s: float | None
    ) -> Generator[Step, int | None, tuple[FloatArray, FloatArray, FloatArray]]:
        """Logit, probability and difficulty of every row; the arrays are the caller's own."""
        excess = self._excess[form][0]
        parts: list[list[FloatArray]] = []
        for start in range(0, len(batch), _STUDENT_CHUNK_ROWS):
            if start:
                yield Step(Pause.CHUNK, 0)
            part = batch
            if len(batch) > _STUDENT_CHUNK_ROWS:
                part = batch.take(slice(start, start + _STUDENT_CHUNK_ROWS))
            now = self.clock()
            rows_left = len(batch) - start
            if deadline_s is not None and (
                now + excess * self.student_cost.seconds(rows_left, now) > deadline_s
            ):
                raise BudgetSpentError
            parts.append(self.student.score(_STUDENT_OUTPUTS, part, form))
            after = self.clock()
            self.student_cost.observe(len(part), (after - now) / excess, after)
        logit, probability, difficulty = joined(parts, len(_STUDENT_OUTPUTS))
        return logit, probability, difficulty

    def _every_row(self, batch: Rows, system: System, deadline_s: float | None) -> Steps:
        output = "trio_probability" if system == "ensemble" else "probability"
        form = form_of(self.layout, batch)
        if system == "ensemble":
            logit = np.zeros(len(batch), np.float32)
        else:
            logit, _, _ = yield from self._student_chunks(batch, form, deadline_s)
        allowed = yield Step(Pause.ENSEMBLE, len(batch), self._excess[form][1])
        if allowed is not None and allowed < len(batch):
            raise BudgetSpentError
        probability = np.empty(len(batch), np.float32)
        done = 0
        while done < len(batch):
            left = len(batch) - done
            rows = self._next_chunk(left, form, deadline_s)
            if not rows or not self._fit(left, form, deadline_s):
                raise BudgetSpentError  # part of the rows would be work for no answer
            chosen = slice(done, done + rows)
            probability[chosen] = self._run_ensemble(output, batch, chosen, logit, form)
            done += rows
            if done < len(batch) and (yield Step(Pause.CHUNK, len(batch) - done)) == 0:
                raise BudgetSpentError
        return Scores(probability, np.ones(len(batch), np.int32), len(batch), len(batch))

    def _next_chunk(self, rows_left: int, form: Form, deadline_s: float | None) -> int:
        now = self.clock()
        excess = self._excess[form][1]
        return next_chunk(
            rows_left,
            None if deadline_s is None else (deadline_s - now) / excess,
            self.ensemble_cost,
            now,
            margin=self.config.safety_margin,
            chunk_s=self.config.chunk_ms / 1e3 / excess,
            max_rows=self.config.max_chunk_rows,
        )

    def _fit(self, rows: int, form: Form, deadline_s: float | None) -> bool:
        """Whether the ensemble answers this many rows in time, by its cost model."""
        if deadline_s is None:
            return True
        now = self.clock()
        usable_s = (deadline_s - now) / self._excess[form][1]
        return self.ensemble_cost.rows_within(usable_s, now, self.config.safety_margin) >= rows

    def _run_ensemble(
        self,
        output: str,
        batch: Rows,
        chosen: npt.NDArray[np.int64] | slice,
        logit: FloatArray,
        form: Form,
    ) -> FloatArray:
        start = self.clock()
        rows = batch.take(chosen)
        (probability,) = self.ensemble.score((output,), rows, form, logit[chosen])
        end = self.clock()
        excess = self._excess[form][1]
        self.ensemble_cost.observe(len(probability), (end - start) / excess, end)
        return probability


def _excess(seconds: float, cheapest_s: float) -> float:
    """How many times as long a form takes as the cheapest one."""
    return max(seconds / max(cheapest_s, 1e-9), 1.0)
