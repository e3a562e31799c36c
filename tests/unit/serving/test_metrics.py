"""Counting and the Prometheus page."""

import errno
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dynens.batch import (
    Candidates,
    EncodedBatch,
    FeatureLayout,
    IdColumns,
    IntArray,
    SparseField,
)
from dynens.engine import Scores
from serving.metrics import BUCKETS_MS, Histogram, ReplicaMetrics, SnapshotFolder, render

LAYOUT = FeatureLayout((), (SparseField("user", 9), SparseField("tags", 9, 2)))


def encoded(ids: IntArray) -> EncodedBatch:
    return EncodedBatch(np.empty((len(ids), 0), np.float32), ids)


def counted() -> ReplicaMetrics:
    metrics = ReplicaMetrics(LAYOUT, "abc")
    scores = Scores(np.full(4, 0.25, np.float32), np.array([0, 1, 0, 0], np.int32), 2, 1, "load")
    ids = np.array([[0, 0, -1], [5, 0, 0], [1, 2, -1], [3, 4, 5]], np.int32)
    metrics.answered(scores, encoded(ids), IdColumns.of(LAYOUT), elapsed_ms=2.5)
    metrics.responded(200)
    metrics.responded(504)
    metrics.refuse("budget_spent")
    metrics.queue.observe(0.05)
    return metrics


def samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(page.decode())
        for s in family.samples
    }


def test_the_page_says_what_was_counted() -> None:
    page = samples(render(counted().snapshot(), SnapshotFolder(None, "a")))
    assert page["dynens_requests_total", (("status", "200"),)] == 1
    assert page["dynens_requests_total", (("status", "504"),)] == 1
    assert page["dynens_refused_total", (("reason", "budget_spent"),)] == 1
    assert page["dynens_rows_total", (("route", "student"),)] == 3
    assert page["dynens_rows_total", (("route", "ensemble"),)] == 1
    assert page["dynens_hard_rows_wanted_total", ()] == 2
    assert page["dynens_hard_rows_granted_total", ()] == 1
    assert page["dynens_degraded_total", (("why", "load"),)] == 1
    assert page["dynens_score_sum_total", ()] == 1.0
    assert page["dynens_oov_values_total", (("field", "user"),)] == 1
    assert page["dynens_oov_values_total", (("field", "tags"),)] == 3
    assert page["dynens_oov_rows_total", ()] == 4
    assert page["dynens_replicas", (("bundle", "abc"),)] == 1
    assert page["dynens_latency_ms_bucket", (("le", "2.0"), ("route", "ensemble"))] == 0
    assert page["dynens_latency_ms_bucket", (("le", "3.0"), ("route", "ensemble"))] == 1
    assert page["dynens_latency_ms_sum", (("route", "ensemble"),)] == 2.5
    assert page["dynens_queue_ms_bucket", (("le", "0.1"),)] == 1


def test_buckets_reach_from_a_tenth_to_fifty_milliseconds() -> None:
    assert (BUCKETS_MS[0], BUCKETS_MS[-1]) == (0.1, 50)
    histogram = Histogram()
    for value in (0.1, 0.11, 50.0, 51.0):
        histogram.observe(value)
    assert histogram.counts[:2] == [1, 1]
    assert histogram.counts[-2:] == [1, 1]


def test_replicas_are_added_up_and_the_dead_keep_their_counts(tmp_path: Path) -> None:
    for name in ("a", "b", "dead"):
        SnapshotFolder(tmp_path, name).write(counted().snapshot())
    long_ago = time.time() - 60
    os.utime(tmp_path / "dead.json", (long_ago, long_ago))
    (tmp_path / "junk.json").write_text("{", encoding="utf-8")
    page = samples(render(counted().snapshot(), SnapshotFolder(tmp_path, "a")))
    assert page["dynens_requests_total", (("status", "200"),)] == 3
    assert page["dynens_replicas", (("bundle", "abc"),)] == 2
    assert page["dynens_latency_ms_count", (("route", "ensemble"),)] == 3


def test_snapshots_are_plain_json_and_a_lost_folder_is_no_error(tmp_path: Path) -> None:
    snapshot = counted().snapshot()
    assert json.loads(json.dumps(snapshot)) == snapshot
    SnapshotFolder(tmp_path / "gone", "a").write(snapshot)
    assert list(SnapshotFolder(tmp_path / "gone", "a").others()) == []


def test_a_full_disk_loses_no_later_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = SnapshotFolder(tmp_path, "a")
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        folder.write(counted().snapshot())
    assert "No space left" in caplog.text
    folder.write(counted().snapshot())
    assert len(list(SnapshotFolder(tmp_path, "b").others())) == 1


def test_counts_go_on_with_a_new_bundle_and_requests_under_way_keep_their_columns() -> None:
    metrics = counted()
    metrics.describe(FeatureLayout((), (SparseField("item", 5),)), "def")
    assert metrics.oov == {"user": 1, "tags": 3, "item": 0}
    assert metrics.snapshot()["gauges"]["version"] == "def"
    assert metrics.responses == {"200": 1, "504": 1}
    scores = Scores(np.full(1, 0.25, np.float32), np.zeros(1, np.int32), 0, 0)
    row = encoded(np.zeros((1, 3), np.int32))
    metrics.answered(scores, row, IdColumns.of(LAYOUT), elapsed_ms=1.0)
    assert metrics.oov == {"user": 2, "tags": 5, "item": 0}


def test_unknown_values_of_candidates_are_those_of_the_same_rows() -> None:
    layout = FeatureLayout(
        (), (SparseField("user", 9), SparseField("item", 9), SparseField("tags", 9, 2)), 0, 1
    )
    table = encoded(np.array([[2, 3, -1], [0, 0, 4], [5, 0, 0]], np.int32))
    columns = IdColumns.of(layout)
    for user, items, counts in (
        (0, [1, 2, 2, 0], [4, 1, 5]),
        (3, [1, 1], [0, 2, 2]),
        (3, [0, 0], None),
        (0, [0], [1, 0, 0]),
    ):
        context = encoded(np.array([[user, 0, 0, 0]], np.int32))
        candidates = Candidates(context, table, np.array(items, np.int32))
        assert columns.count_unknown(candidates) == counts
        assert columns.count_unknown(candidates.encoded()) == counts
