"""Data preparation with Ray Data: one task per input file, the same values as a single process.

`dynens.data.prepare` cuts its work into calls on single files whose results merge to what one
process would have found. Here Ray Data runs these calls; splitting, merging and the statistics of
training rows stay in the driver.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data

from dynens.data.prepare import Call, prepare
from dynens.data.prepared import PreparedData
from dynens.errors import DynensError
from dynens.schema import DatasetConfig


def prepare_on_ray(
    dataset: DatasetConfig,
    out_dir: Path,
    *,
    seed: int,
    workers: int = 2,
    train_on_valid: bool = False,
) -> PreparedData:
    """`prepare` over many files at once, on the Ray that is running.

    Args:
        dataset: files, schema and split.
        out_dir: a folder that all workers can write (shared storage on several machines).
        seed: of random splits and folds.
        workers: files worked on at the same time.
        train_on_valid: as for `prepare`.

    Raises:
        DataError: as `prepare`.
        SchemaError: as `prepare`.
    """
    return prepare(
        dataset, out_dir, seed=seed, map_files=RayFiles(workers), train_on_valid=train_on_valid
    )


class RayFiles:
    """Runs independent calls as a Ray Data pipeline, at most `workers` at a time."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def __call__(self, calls: Sequence[Call]) -> Iterator[Any]:
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        rows = [{"index": i, "call": ray.cloudpickle.dumps(call)} for i, call in enumerate(calls)]
        results = (
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .map(_run, compute=ray.data.TaskPoolStrategy(size=min(self._workers, len(rows))))
            .take_all()
        )
        for row in sorted(results, key=lambda row: row["index"]):
            outcome = pickle.loads(row["result"])
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome


def _run(row: dict[str, Any]) -> dict[str, Any]:
    """One call in a worker; errors that are meant for the user travel back as values."""
    try:
        outcome: Any = pickle.loads(row["call"])()
    except (DynensError, OSError, MemoryError, pa.ArrowException) as error:
        outcome = error
    return {"index": row["index"], "result": pickle.dumps(_settled(outcome))}


def _settled(outcome: Any) -> Any:
    """What can be sent: open files of shard writers are closed first."""
    for shard in getattr(outcome, "shards", ()):
        shard.pause()
    return outcome
