"""What a table's soft labels are worth: an earlier run's answers, or other sites'.

    python -m benchmarks.soft_labels continual --data PRESET --seeds 1 2 3 --out FILE.json
    python -m benchmarks.soft_labels federated --data PRESET --seeds 1 2 3 --out FILE.json

Both cut the log by time: 80 % to train on, then a tenth each for validation and test.

`continual`: a run on the older part (45 % of all rows, a fifth of them held out) answers for the
newer part (35 %), which a second run is trained on. Its students differ by how much they listen to
their predecessor; AUC on later rows shows what they learned, that on the held-out older rows what
they kept.

`federated`: users are dealt to three sites and a public part. Every site trains a run on its own
rows and answers for the public ones, where the student learns from the mean of the answers; no site
shows a row. The reference hears nothing.

KuaiRand is read from the folder in DYNENS_DATA_HOME. Nothing is chosen on test rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import (
    grouped,
    markdown_table,
    mean_and_spread,
    one_sentence,
    write_result,
)
from benchmarks.distillation import train_student
from dynens.config.run import load_run_config
from dynens.data.datasets.presets import dataset_for
from dynens.data.prepared import open_prepared
from dynens.data.reading.sources import iter_tables
from dynens.data.reading.times import to_seconds
from dynens.data.staging import group_codes
from dynens.engine import Engine
from dynens.errors import BadInputError
from dynens.metrics import auc
from dynens.predict import predict_file
from dynens.run import RunDirectory
from dynens.schema import DatasetConfig, SplitConfig
from training.pipeline import fit
from training.stages import labels_of, weights_of

WEIGHTS = (0.0, 0.5, 1.0, 2.0)
COLUMN = "soft_label"
SITES = 3
_CUTS = (0.45, 0.8, 0.9)
_SITE_HASH = 0x9E3779B97F4A7C15

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Parts:
    """Which rows do what.

    Attributes:
        teachers: rows that train each run whose answers are the soft labels.
        student: rows that the student is trained on.
        valid: rows that it is chosen on.
        tests: rows that it is judged on, by name; `test` first.
    """

    teachers: dict[str, Mask]
    student: Mask
    valid: Mask
    tests: dict[str, Mask]


def continual_parts(times: npt.NDArray[np.float64], users: npt.NDArray[np.int64]) -> Parts:
    """An older and a newer window, and later rows."""
    del users
    old, new, valid, test = _windows(times)
    held = np.random.default_rng(0).random(len(times)) < 0.2
    tests = {"test": test, "older rows": old & held}
    return Parts({"predecessor": old & ~held}, new, valid, tests)


def federated_parts(times: npt.NDArray[np.float64], users: npt.NDArray[np.int64]) -> Parts:
    """Three sites and a public part, by users."""
    old, new, valid, test = _windows(times)
    mixed = (users.view(np.uint64) * np.uint64(_SITE_HASH)) >> np.uint64(40)
    dealt = (mixed % np.uint64(SITES + 1)).astype(np.int64)
    public = dealt == SITES
    sites = {f"site {i + 1}": (old | new) & (dealt == i) for i in range(SITES)}
    tests = {"test": test, "test, public users": test & public}
    return Parts(sites, (old | new) & public, valid & public, tests)


def _windows(times: npt.NDArray[np.float64]) -> tuple[Mask, Mask, Mask, Mask]:
    """Rows before, between and after the cuts, times alike on one side."""
    first, second, third = np.quantile(times, _CUTS)
    rest = (times >= first, times >= second, times >= third)
    return ~rest[0], rest[0] & ~rest[1], rest[1] & ~rest[2], rest[2]


STUDIES: dict[str, Callable[[npt.NDArray[np.float64], npt.NDArray[np.int64]], Parts]] = {
    "continual": continual_parts,
    "federated": federated_parts,
}


def run_study(study: str, data: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """The teachers and the students of one seed: their AUC on the validation half and on tests."""
    dataset = dataset_for(data)
    features = dataset.features
    if features.timestamp is None or features.user_key is None:
        raise BadInputError(f"{data} does not tell when rows happened and whose they are.")
    table = pa.concat_tables(t for _, t in iter_tables(dataset.files, dataset.source))
    times = to_seconds(table[features.timestamp], features.time_format)
    parts = STUDIES[study](times, group_codes(table[features.user_key]))
    tests = {
        name: _write(table, mask, folder / f"{name}.parquet") for name, mask in parts.tests.items()
    }
    rows = _write(table, parts.student, folder / "student-rows.parquet")
    results, answers = [], []
    config = load_run_config(None, [f"seed={seed}", "refit=false", "distill.soft_label=0"])
    for name, mask in parts.teachers.items():
        source = _write(table, mask, folder / f"{name}.parquet")
        given = _dataset(dataset, source, test=tests["test"])
        run = fit(given, config, folder / f"run-{name}")
        answered = folder / f"{name}-answers.parquet"
        predict_file(run, str(rows), answered, "ensemble")
        answers.append(pq.read_table(answered, columns=["probability"])["probability"].to_numpy())
        results.append({"system": f"student of {name}", "seed": seed, **_aucs(run, tests)})
        print(json.dumps(results[-1]), flush=True)
    taught = table.filter(pa.array(parts.student)).append_column(
        COLUMN, pa.array(np.mean(answers, axis=0))
    )
    pq.write_table(taught, rows)
    given = _dataset(
        dataset, rows, _write(table, parts.valid, folder / "valid.parquet"), tests["test"]
    )
    features = features.model_copy(update={"soft_label": COLUMN})
    run = fit(given.model_copy(update={"features": features}), config, folder / "run-student")
    for weight in WEIGHTS:
        figures, _ = train_student(run, [f"distill.soft_label={weight}"], 0, tests)
        results.append({"system": "student", "weight": weight, "seed": seed, **figures})
        print(json.dumps(results[-1]), flush=True)
    return results


def _write(table: pa.Table, mask: Mask, path: Path) -> Path:
    pq.write_table(table.filter(pa.array(mask)), path)
    return path


def _dataset(
    dataset: DatasetConfig, train: Path, valid: Path | None = None, test: Path | None = None
) -> DatasetConfig:
    """The same columns and entities, of these rows."""
    files = {"files": train, "valid_files": valid, "test_files": test}
    given = {name: () if path is None else (str(path),) for name, path in files.items()}
    return dataset.model_copy(update={**given, "split": SplitConfig()})


def _aucs(run: RunDirectory, tests: Mapping[str, Path]) -> dict[str, float]:
    """AUC of a run's own student on other tables."""
    engine, data = Engine.load(run.root), open_prepared(run.data)
    aucs = {}
    for name, path in tests.items():
        batch = data.encode_file(str(path))
        scores = engine.score(batch, system="student")
        aucs[name] = auc(labels_of(batch), scores.probability, weights_of(batch))
    return aucs


def markdown(report: Mapping[str, Any]) -> str:
    """Mean ± standard deviation over seeds per system, and the gain of listening, paired."""
    results = report["results"]
    tests = report["tests"]
    deaf = {r["seed"]: r for r in results if r.get("weight") == 0.0}
    rows = []
    for (system, weight), own in grouped(results, "system", "weight").items():
        name = system if weight is None else f"student, soft_label {weight:g}"
        cells = [mean_and_spread([r["route"] for r in own if "route" in r])]
        for test in tests:
            cells.append(mean_and_spread([r[test] for r in own]))
            gains = [r[test] - deaf[r["seed"]][test] for r in own if r["seed"] in deaf]
            cells.append(mean_and_spread(gains, sign="+") if weight else "–")
        rows.append([name, *cells])
    columns = ["system", "route AUC"]
    for test in tests:
        columns += [f"AUC, {test}", "− without"]
    return markdown_table(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--data", required=True, help="a preset with times and users")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder, one_sentence():
            results += run_study(arguments.study, arguments.data, seed, Path(folder))
        report = {
            "study": arguments.study,
            "data": arguments.data,
            "tests": [k for k in results[0] if k not in ("system", "seed")],
            "results": results,
        }
        write_result(arguments.out, report)
    print(markdown(report))


if __name__ == "__main__":
    main()
