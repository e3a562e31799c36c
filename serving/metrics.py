"""Counters of one replica, cheap enough for every request, and their Prometheus page.

The hot path adds to plain numbers. Each replica writes them to a file of its own about once a
second, and whichever replica is asked for `/metrics` adds up all files, so the page speaks for the
whole server and counts of replicas that are gone are kept.
"""

from __future__ import annotations

import bisect
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from dynens.batch import FeatureLayout, IdColumns, Rows
from dynens.engine import Scores

logger = logging.getLogger("dynens.serving")

BUCKETS_MS = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 30, 50)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts per bucket and the sum, in milliseconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_MS) + 1)
        self.sum = 0.0

    def observe(self, value_ms: float) -> None:
        self.counts[bisect.bisect_left(BUCKETS_MS, value_ms)] += 1
        self.sum += value_ms

    def to_list(self) -> list[float]:
        return [*self.counts, self.sum]


class ReplicaMetrics:
    """What one replica has counted since it started."""

    def __init__(self, layout: FeatureLayout, version: str) -> None:
        self.responses: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.degraded: dict[str, int] = {}
        self.swaps: dict[str, int] = {}
        self.oov: dict[str, int] = {}
        self.oov_rows = 0
        self.rows = [0, 0]
        self.hard_wanted = 0
        self.hard_granted = 0
        self.disconnected = 0
        self.score_sum = 0.0
        self.latency = {"student": Histogram(), "ensemble": Histogram()}
        self.queue = Histogram()
        self.in_flight = 0
        self.slowdown = 1.0
        self.describe(layout, version)

    def describe(self, layout: FeatureLayout, version: str) -> None:
        """Take over the layout and version of a (new) bundle."""
        self.version = version
        for field in layout.fields:
            self.oov.setdefault(field.name, 0)

    def answered(self, scores: Scores, rows: Rows, columns: IdColumns, elapsed_ms: float) -> None:
        """Count a request that was answered with scores of these rows."""
        hard = scores.hard_granted
        self.rows[1] += hard
        self.rows[0] += len(rows) - hard
        self.hard_wanted += scores.hard_wanted
        self.hard_granted += hard
        self.score_sum += float(scores.probability.sum())
        self.latency["ensemble" if hard else "student"].observe(elapsed_ms)
        if scores.degraded is not None:
            self.degraded[scores.degraded] = self.degraded.get(scores.degraded, 0) + 1
        if columns.names:
            self.oov_rows += len(rows)
            unknown = columns.count_unknown(rows)
            for name, count in zip(columns.names, unknown, strict=True) if unknown else ():
                self.oov[name] += count

    def responded(self, status: int) -> None:
        key = str(status)
        self.responses[key] = self.responses.get(key, 0) + 1

    def refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def swapped(self, outcome: str) -> None:
        self.swaps[outcome] = self.swaps.get(outcome, 0) + 1

    def snapshot(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "responses": dict(self.responses),
            "refused": dict(self.refused),
            "degraded": dict(self.degraded),
            "swaps": dict(self.swaps),
            "rows": {"student": self.rows[0], "ensemble": self.rows[1]},
            "hard": {"wanted": self.hard_wanted, "granted": self.hard_granted},
            "disconnected": self.disconnected,
            "score_sum": self.score_sum,
            "latency": {name: h.to_list() for name, h in self.latency.items()},
            "queue": self.queue.to_list(),
            "oov": dict(self.oov),
            "oov_rows": self.oov_rows,
            "gauges": {
                "version": self.version,
                "in_flight": self.in_flight,
                "slowdown": self.slowdown,
            },
        }


def add_snapshots(total: Any, part: Any) -> Any:
    """Add nested numbers; keys and lists are merged, gauges are left to the caller."""
    if isinstance(part, dict):
        merged = dict(total or {})
        for key, value in part.items():
            merged[key] = add_snapshots(merged.get(key), value) if key != "gauges" else value
        return merged
    if isinstance(part, list):
        return part if total is None else [a + b for a, b in zip(total, part, strict=True)]
    return part if total is None else total + part


class SnapshotFolder:
    """The files through which replicas of one server share their counts."""

    # A file this old belongs to a replica that is gone: its counts stay, its gauges do not.
    STALE_S = 5.0

    def __init__(self, directory: Path | None, replica: str) -> None:
        self._directory = directory
        self._path = None if directory is None else directory / f"{replica}.json"

    def write(self, snapshot: Mapping[str, Any]) -> None:
        """Publish this replica's counts, or say why not: the next ones may find room again."""
        if self._path is None:
            return
        staging = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            staging.write_text(json.dumps(snapshot), encoding="utf-8")
            os.replace(staging, self._path)
        except FileNotFoundError:
            return  # the server is shutting down and its folder is gone
        except OSError as e:
            logger.warning("counts are not published: %s cannot be written (%s)", self._path, e)

    def others(self) -> Iterable[tuple[dict[str, Any], bool]]:
        """Counts of the other replicas, each with whether it is alive."""
        if self._directory is None:
            return
        for path in sorted(self._directory.glob("*.json")):
            if path == self._path:
                continue
            try:
                age_s = time.time() - path.stat().st_mtime
                yield json.loads(path.read_text(encoding="utf-8")), age_s < self.STALE_S
            except (OSError, ValueError):
                continue  # being replaced or removed at this moment


class _Page(Collector):
    """One server's counts as Prometheus metrics."""

    def __init__(self, snapshots: list[tuple[dict[str, Any], bool]]) -> None:
        self._live = [s["gauges"] for s, alive in snapshots if alive]
        total: dict[str, Any] = {}
        for snapshot, _ in snapshots:
            total = add_snapshots(total, snapshot)
        self._total = total

    def collect(self) -> Iterable[Metric]:
        yield from self._counters()
        yield from self._histograms()
        yield from self._gauges()

    def _counters(self) -> Iterable[Metric]:
        t = self._total
        labelled = (
            ("dynens_requests", "Responses by HTTP status.", "status", t["responses"]),
            ("dynens_refused", "Requests without scores, by reason.", "reason", t["refused"]),
            ("dynens_rows", "Rows answered, by route.", "route", t["rows"]),
            ("dynens_degraded", "Answers with fewer hard rows than wanted.", "why", t["degraded"]),
            ("dynens_oov_values", "Values outside the vocabulary.", "field", t["oov"]),
            ("dynens_bundle_swaps", "Changes of a replica's bundle.", "outcome", t["swaps"]),
        )
        for name, text, label, values in labelled:
            family = CounterMetricFamily(name, text, labels=[label])
            for key, value in sorted(values.items()):
                family.add_metric([key], value)
            yield family
        hard = t["hard"]
        yield CounterMetricFamily("dynens_hard_rows_wanted", "Hard rows.", value=hard["wanted"])
        yield CounterMetricFamily(
            "dynens_hard_rows_granted", "Hard rows the ensemble answered.", value=hard["granted"]
        )
        yield CounterMetricFamily(
            "dynens_disconnected", "Clients gone before their answer.", value=t["disconnected"]
        )
        yield CounterMetricFamily(
            "dynens_oov_rows", "Rows looked at for unknown values.", value=t["oov_rows"]
        )
        yield CounterMetricFamily(
            "dynens_score_sum", "Sum of probabilities; over rows: mean.", value=t["score_sum"]
        )

    def _histograms(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(
            "dynens_latency_ms", "From arrival to the answer, by route.", labels=["route"]
        )
        for route, values in self._total["latency"].items():
            family.add_metric([route], _buckets(values), values[-1])
        yield family
        queue = self._total["queue"]
        yield HistogramMetricFamily(
            "dynens_queue_ms",
            "From arrival at the machine to the application.",
            buckets=_buckets(queue),
            sum_value=queue[-1],
        )

    def _gauges(self) -> Iterable[Metric]:
        info = GaugeMetricFamily("dynens_replicas", "Replicas by bundle.", labels=["bundle"])
        versions = [g["version"] for g in self._live]
        for version in sorted(set(versions)):
            info.add_metric([version], versions.count(version))
        yield info
        yield GaugeMetricFamily(
            "dynens_in_flight", "Requests being worked on.", sum(g["in_flight"] for g in self._live)
        )
        yield GaugeMetricFamily(
            "dynens_ensemble_slowdown",
            "Ensemble time over its time at warm-up, the slowest replica's.",
            max((g["slowdown"] for g in self._live), default=1.0),
        )


def _buckets(values: list[float]) -> list[tuple[str, float]]:
    cumulative = np.cumsum(values[:-1]).tolist()
    names = [*(str(float(b)) for b in BUCKETS_MS), "+Inf"]
    return list(zip(names, cumulative, strict=True))


def render(own: dict[str, Any], folder: SnapshotFolder) -> bytes:
    """The page at `/metrics`: this replica's counts and the other replicas'."""
    registry = CollectorRegistry()
    registry.register(_Page([(own, True), *folder.others()]))
    return generate_latest(registry)
