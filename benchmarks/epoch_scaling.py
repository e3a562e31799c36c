"""Seconds per epoch and peak memory of a DNN against the number of training rows.

    python -m benchmarks.epoch_scaling --rows 100000 1000000 10000000 --out scaling.json

Rows lie in memory-mapped files, as prepared data does, and each size runs in its own process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import markdown_table, one_sentence, write_result
from dynens.batch import EncodedBatch, FeatureLayout, SparseField
from dynens.config.learner import LearnerConfig, OptimizerConfig
from dynens.models.batches import minibatches
from dynens.models.dnn import DNNHead
from dynens.models.network import CTRNetwork
from dynens.models.training import Trainer

NUM_FIELDS, VOCABULARY, CHUNK_ROWS = 10, 10_000, 1_000_000


def write_rows(folder: Path, num_rows: int) -> EncodedBatch:
    """Random ids and labels in memory-mapped files."""
    rng = np.random.default_rng(0)
    ids = np.memmap(folder / "ids", np.int32, "w+", shape=(num_rows, NUM_FIELDS))
    labels = np.memmap(folder / "labels", np.float32, "w+", shape=(num_rows,))
    for start in range(0, num_rows, CHUNK_ROWS):
        rows = slice(start, min(start + CHUNK_ROWS, num_rows))
        size = rows.stop - start
        ids[rows] = rng.integers(0, VOCABULARY, (size, NUM_FIELDS), dtype=np.int32)
        labels[rows] = rng.random(size) < 0.3
    ids.flush()
    labels.flush()
    return EncodedBatch(np.zeros((num_rows, 0), np.float32), ids, labels)


def one_epoch(num_rows: int, batch_size: int, threads: int) -> dict[str, Any]:
    """Train one epoch and report."""
    torch.set_num_threads(threads)
    config = LearnerConfig(
        use_stats=False,
        dropout=0.1,
        optimizer=OptimizerConfig(batch_size=batch_size, embedding_l2=1e-5, ema_decay=0.999),
    )
    fields = tuple(SparseField(f"f{i}", VOCABULARY) for i in range(NUM_FIELDS))
    network = CTRNetwork(FeatureLayout((), fields), config, DNNHead, None)
    trainer = Trainer(network, config, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(Path(folder), num_rows)
        started = time.perf_counter()
        for batch in minibatches(rows, batch_size, np.random.default_rng(0)):
            trainer.train_step(batch)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    anonymous = [
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        if line.startswith("RssAnon")
    ]
    return {
        "rows": num_rows,
        "seconds": seconds,
        "rows_per_second": num_rows / seconds,
        "peak_rss_bytes": peak,
        "anonymous_bytes": anonymous[0] if anonymous else None,
    }


def markdown(data: Mapping[str, Any]) -> str:
    """The results as a table."""
    rows = []
    for r in data["results"]:
        memory = (r["anonymous_bytes"] or r["peak_rss_bytes"]) / 1e6
        speed = f"{r['rows_per_second']:,.0f}"
        rows.append([f"{r['rows']:,}", f"{r['seconds']:.2f}", speed, f"{memory:.0f}"])
    return markdown_table(["rows", "s per epoch", "rows/s", "anonymous memory, MB"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    arguments = parser.parse_args()
    results = []
    context = multiprocessing.get_context("spawn")
    for rows in arguments.rows:
        with context.Pool(1) as workers:
            task = (rows, arguments.batch_size, arguments.threads)
            results.append(workers.apply(one_epoch, task))
        print(json.dumps(results[-1]), flush=True)
    write_result(arguments.out, {"results": results})


if __name__ == "__main__":
    with one_sentence():
        main()
