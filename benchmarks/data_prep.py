"""Rows per second and peak memory of data preparation.

Usage: python -m benchmarks.data_prep --rows 10000000 --out benchmarks/out/data_prep.json
       python -m benchmarks.data_prep --preset movielens-1m --out benchmarks/out/data_prep_ml.json
       python -m benchmarks.data_prep --encode --out benchmarks/out/encode.json
       python -m benchmarks.data_prep --unprepared numbers --rows 200000 --out o.json

The preparation runs in a process of its own, so that its peak is its own; the synthetic tables are
made beforehand and kept beside the output.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from benchmarks.common import one_sentence, write_result
from dynens.data.datasets import synthetic
from dynens.data.datasets.presets import dataset_for, dataset_from_files
from dynens.data.encoding.encoders import RowEncoder
from dynens.data.encoding.fitters import field_fitter
from dynens.data.prepare import prepare
from dynens.schema import DatasetConfig, FieldSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="synthetic rows")
    parser.add_argument("--preset", help="prepare this preset instead")
    parser.add_argument("--unprepared", choices=UNPREPARED, help="infer a CSV's schema, too")
    parser.add_argument("--dir", type=Path, help="local copy of the preset")
    parser.add_argument("--encode", action="store_true", help="measure encoding of 40 fields")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder for tables and shards")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="dynens-data-prep-"))
    try:
        if options.encode:
            result = measure_encoding(options.rows, max(options.repeats, 5))
        else:
            result = measure_preparation(_dataset(options, work), work, options.repeats)
    finally:
        if options.work is None:
            shutil.rmtree(work, ignore_errors=True)
    write_result(options.out, result)
    print(json.dumps(result, indent=1))


def _dataset(options: argparse.Namespace, work: Path) -> DatasetConfig:
    if options.preset:
        return dataset_for(options.preset, options.dir)
    if options.unprepared:
        table = UNPREPARED[options.unprepared](options.rows, np.random.default_rng(0))
        path = work / f"{options.unprepared}-{options.rows}.csv"
        work.mkdir(parents=True, exist_ok=True)
        pa_csv.write_csv(table, str(path))
        return dataset_from_files(path, label="click")
    folder = work / f"synthetic-{options.rows}"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        config = synthetic.SyntheticConfig(
            num_rows=options.rows, num_users=max(options.rows // 40, 2), num_items=100_000
        )
        synthetic.write(config, folder)
    return synthetic.dataset(folder)


def numbers(num_rows: int, rng: np.random.Generator) -> pa.Table:
    """20 numbers with all their digits, 5 small integers, a user."""
    columns: dict[str, Any] = {f"x{i}": rng.normal(size=num_rows) for i in range(20)}
    columns |= {f"c{i}": rng.integers(0, 50, num_rows) for i in range(5)}
    columns["user_id"] = rng.integers(0, max(num_rows // 40, 2), num_rows)
    z = columns["x0"] - 0.1 * columns["c0"] + 2
    return pa.table(columns).append_column("click", _flips(z, rng))


def texts(num_rows: int, rng: np.random.Generator) -> pa.Table:
    """Times, prices, words, addresses, lists and objects as texts."""
    counts = rng.integers(0, 250, (num_rows, 4)).tolist()
    when = 1_700_000_000 + np.sort(rng.integers(0, 5_000_000, num_rows))
    joined = when - rng.integers(0, 30_000_000, num_rows)
    words = rng.zipf(1.5, (num_rows, 6)) % 2000
    columns = {
        "time": np.datetime_as_string(when.astype("datetime64[s]")),
        "joined": np.datetime_as_string(joined.astype("datetime64[s]"), unit="D"),
        "title": [" ".join(f"w{word}" for word in row) for row in words.tolist()],
        "url": [f"https://shop{a}.com/c{b}/p{c}?q={d}" for a, b, c, d in counts],
        "agent": [f"Mozilla/5.0 (Linux; Android {a % 9}.{b % 9}) App/{c}" for a, b, c, _ in counts],
        "tags": ["|".join(f"t{tag % 50}" for tag in row[: row[0] % 4]) for row in counts],
        "price": [f"${price:,.2f}" for price in rng.lognormal(6, 2, num_rows)],
        "ip": [f"10.{a}.{b}.{c}" for a, b, c, _ in counts],
        "device": [json.dumps({"os": a % 2, "version": b % 30}) for a, b, _, _ in counts],
        "user": [f"u{a * b}" for a, b, _, _ in counts],
        "spent": [f"{a % 60}m {b % 60}s" for a, b, _, _ in counts],
    }
    z = np.array([a * b % 7 - 3.0 for a, b, _, _ in counts])
    return pa.table(columns).append_column("click", _flips(z, rng))


UNPREPARED = {table.__name__: table for table in (numbers, texts)}


def _flips(z: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    return [(rng.random(len(z)) < 1 / (1 + np.exp(-z))).astype(np.int64).tolist()]


def measure_preparation(dataset: DatasetConfig, work: Path, repeats: int) -> dict[str, Any]:
    """Prepare `repeats` times, each in a fresh process."""
    runs = []
    for _ in range(repeats):
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=_prepare, args=(dataset, work / "prepared", queue))
        process.start()
        runs.append(queue.get())
        process.join()
        shutil.rmtree(work / "prepared", ignore_errors=True)
    rows = runs[0]["rows"]
    seconds = statistics.median(run["seconds"] for run in runs)
    return {
        "dataset": dataset.name,
        "rows": rows,
        "median_seconds": seconds,
        "rows_per_s": rows / seconds,
        "peak_rss_mb": max(run["peak_rss_mb"] for run in runs),
        "runs": runs,
    }


def _prepare(dataset: DatasetConfig, out: Path, queue: Any) -> None:
    start = time.perf_counter()
    steps: list[tuple[float, str]] = []
    data = prepare(
        dataset,
        out,
        seed=0,
        progress=lambda step: steps.append((time.perf_counter() - start, step)),
    )
    seconds = time.perf_counter() - start
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = data.report["rows_read"]
    queue.put({"rows": rows, "seconds": seconds, "peak_rss_mb": peak_mb, "steps": steps})


def measure_encoding(num_rows: int, repeats: int) -> dict[str, Any]:
    """Encode rows of 40 fields (30 categorical of 10 to 100,000 values, 10 numeric)."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    specs = []
    for i in range(30):
        values = rng.zipf(1.3, num_rows) % 10 ** (1 + i % 5)
        texts = pa.array(values.astype(np.int64))
        columns[f"c{i}"] = texts.cast(pa.string()) if i % 2 else texts
        specs.append(FieldSpec(name=f"c{i}"))
    for i in range(10):
        columns[f"n{i}"] = rng.normal(size=num_rows)
        specs.append(FieldSpec(name=f"n{i}", kind="numeric", buckets=32))
    table = pa.table(columns)
    fitters = [field_fitter(spec) for spec in specs]
    for fitter in fitters:
        fitter.add(table[fitter.spec.name])
    encoder = RowEncoder([fitter.finish() for fitter in fitters])
    samples = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for chunk in table.to_batches(max_chunksize=131_072):
            encoder.encode_table(pa.Table.from_batches([chunk]))
        samples.append(time.perf_counter() - start)
    seconds = statistics.median(samples[1:])
    return {
        "rows": num_rows,
        "fields": len(specs),
        "seconds": samples[1:],
        "rows_per_minute": num_rows / seconds * 60,
    }


if __name__ == "__main__":
    with one_sentence():
        main()
