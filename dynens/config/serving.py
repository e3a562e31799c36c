"""Settings of the scoring engine and of the server around it."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from dynens.config.base import FrozenConfig

System = Literal["dynamic", "student", "ensemble", "ensemble_with_student"]


def _no_nan(threshold: float) -> float:
    if math.isnan(threshold):
        raise ValueError("a threshold of nan is above and below nothing; give a number or -.inf")
    return threshold


Threshold = Annotated[float, Field(allow_inf_nan=True), AfterValidator(_no_nan)]
"""A difficulty; infinity where no row is hard, minus infinity where every row is."""


class EngineConfig(FrozenConfig):
    """How the engine spends time.

    Attributes:
        intra_op_threads: threads of each ONNX Runtime session.
        chunk_ms: predicted duration of one chunk of ensemble work between two looks at the clock.
        max_chunk_rows: rows of one chunk at most, whatever the prediction says.
        safety_margin: share added to every predicted cost before it is compared with the time left.
        warm_up_rows: batch sizes run while warming up; the cost model is fitted on them.
        warm_up_repeats: runs per size; the median counts.
    """

    intra_op_threads: int = Field(default=1, ge=1)
    chunk_ms: float = Field(default=3.0, gt=0)
    max_chunk_rows: int = Field(default=512, ge=1)
    safety_margin: float = Field(default=0.15, ge=0)
    warm_up_rows: tuple[PositiveInt, ...] = Field(default=(1, 8, 32, 64, 100, 200), min_length=1)
    warm_up_repeats: int = Field(default=7, ge=1)


class LimitsConfig(FrozenConfig):
    """What a request may ask for; beyond it the answer is 4xx (413 for bodies)."""

    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    max_rows: int = Field(default=10_000, ge=1)
    max_string_chars: int = Field(default=4096, ge=1)
    max_budget_ms: float = Field(default=60_000.0, gt=0)


class ServingConfig(FrozenConfig):
    """One server.

    Attributes:
        system: what answers: the routed pair, the student alone, or the trio on every row.
        threshold: difficulty above which a row is hard; None keeps the bundle's own.
            `-.inf` sends every row to the ensemble.
        latency_budget_ms: default budget of a request; None keeps the bundle's own.
        replicas: scoring processes.
        max_queued: requests one replica holds at a time before it sheds.
        scoring_thread: run long ensemble work beside the event loop instead of on it.
        bearer_token_env: name of an environment variable whose value clients must send as
            `Authorization: Bearer …`; None asks for nothing. Health stays open.
        drain_s: how long a stopping replica may finish what it has accepted.
        object_store_mb: shared memory given to a Ray started by the server.
        item_tables_mb: what a bundle's graphs may keep of the items, computed at export, student
            first; a graph beyond it gets the candidates of a request as full rows.
    """

    system: System = "dynamic"
    threshold: Threshold | None = None
    latency_budget_ms: float | None = Field(default=None, gt=0)
    replicas: int = Field(default=1, ge=1)
    max_queued: int = Field(default=64, ge=1)
    scoring_thread: bool = True
    bearer_token_env: str | None = None
    drain_s: float = Field(default=10.0, ge=0)
    object_store_mb: int = Field(default=100, ge=80)
    item_tables_mb: float = Field(default=256, ge=0)
    engine: EngineConfig = EngineConfig()
    limits: LimitsConfig = LimitsConfig()

    @model_validator(mode="after")
    def _within_the_limits(self) -> ServingConfig:
        budget_ms, limit_ms = self.latency_budget_ms, self.limits.max_budget_ms
        if budget_ms is not None and budget_ms > limit_ms:
            raise ValueError(
                f"latency_budget_ms is {budget_ms:g} but limits.max_budget_ms is {limit_ms:g}; "
                "lower the one or raise the other"
            )
        return self
