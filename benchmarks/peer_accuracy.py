"""Accuracy against RecBole's models: same rows, same ids, RecBole's own code and training.

    python -m benchmarks.peer_accuracy RUN [RUN ...] --jobs 2 --out FILE.json

RecBole reads the encoded rows of a finished run (`RUN/data`): the ids and numbers that dynens's
learners get, less target statistics, and the same cut. Every model is trained at each of a few
settings with RecBole's early stopping on validation AUC; a model's best setting and the best model
are chosen on validation rows, and the test rows of that one are compared with the run's own
systems, seed by seed, with paired intervals. RecBole gets an environment of its own under
`--cache`, made when absent.

References:
    Zhao et al., "RecBole: Towards a Unified, Comprehensive and Efficient Framework for
    Recommendation Algorithms", CIKM 2021.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from benchmarks.common import (
    difference,
    grouped,
    markdown_table,
    mean_and_spread,
    one_sentence,
    with_held_out_rows,
    write_result,
)
from benchmarks.environments import CACHE, peer_python
from dynens.batch import PADDING, EncodedBatch, FeatureLayout
from dynens.bootstrap import PairedAUC
from dynens.data.prepared import PreparedData, open_prepared
from dynens.evaluation.systems import RunSystems, score_rows
from dynens.metrics import auc
from dynens.report.write import run_config
from dynens.run import RunDirectory

RECBOLE = "recbole==1.2.1"
# What RecBole imports to train; it asks for more (an early Ray) than that, and for NumPy 1.
NEEDS = (
    "torch==2.13.0",
    "numpy==1.26.4",
    "pandas==2.1.4",
    "scipy==1.17.1",
    "scikit-learn==1.9.1",
    "pyyaml==6.0.4",
    "tqdm==4.70.1",
    "colorlog==4.7.2",
    "colorama==0.4.4",
    "tensorboard==2.21.0",
    "setuptools==80.9.0",
    "thop==0.1.1.post2209072238",
    "tabulate==0.10.0",
    "texttable==1.7.2",
    "plotly==7.1.0",
    "psutil==7.2.2",
)
PEER = Path(__file__).with_name("peer_recbole.py")
NAME = "encoded"
HIDDEN = [256, 128, 64]
MODELS: dict[str, dict[str, Any]] = {
    "DeepFM": {"mlp_hidden_size": HIDDEN},
    "DCNV2": {"mlp_hidden_size": HIDDEN, "cross_layer_num": 3},
    "AutoInt": {"mlp_hidden_size": HIDDEN},
    "PNN": {"mlp_hidden_size": HIDDEN},
}
COMMON = {"embedding_size": 16, "train_batch_size": 4096, "stopping_step": 3, "epochs": 50}
SETTINGS = [
    {"learning_rate": 1e-3, "weight_decay": 0.0},
    {"learning_rate": 1e-3, "weight_decay": 1e-5},
    {"learning_rate": 5e-4, "weight_decay": 1e-5},
]
OURS = ("baseline", "best_single", "student", "static_ensemble", "dynamic")
Probabilities = dict[str, npt.NDArray[np.floating]]


def field_names(layout: FeatureLayout) -> tuple[list[str], list[str]]:
    """Names for RecBole: of the sparse fields and of the dense features, in order."""
    sparse = [f"f{i}" for i in range(len(layout.fields))]
    return sparse, [f"d{i}" for i in range(layout.num_dense)]


def write_rows(path: Path, batch: EncodedBatch, layout: FeatureLayout) -> None:
    """One of RecBole's atomic files: ids as tokens, lists separated by spaces, numbers."""
    assert batch.labels is not None
    sparse, dense = field_names(layout)
    columns: dict[str, Any] = {"row:float": np.arange(len(batch))}
    for name, (field, at) in zip(sparse, layout.columns(), strict=True):
        ids = batch.ids[:, at]
        if field.width == 1:
            columns[f"{name}:token"] = ids[:, 0]
        else:
            lists = [" ".join(map(str, row[row != PADDING])) for row in ids]
            columns[f"{name}:token_seq"] = lists
    for i, name in enumerate(dense):
        columns[f"{name}:float"] = batch.dense[:, i]
    columns["label:float"] = batch.labels.astype(np.int64)
    options = pyarrow.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    with path.open("wb") as file:
        file.write(("\t".join(columns) + "\n").encode())
        pyarrow.csv.write_csv(pa.table(columns), file, options)


def write_data(data: PreparedData, folder: Path) -> dict[str, Any]:
    """The splits as RecBole reads them; what the peer must know of their columns."""
    layout = data.layout
    (folder / NAME).mkdir()
    for split in ("train", "valid", "test"):
        write_rows(folder / NAME / f"{NAME}.{split}.inter", data.split(split), layout)
    sparse, dense = field_names(layout)
    single = [n for n, field in zip(sparse, layout.fields, strict=True) if field.width == 1]
    names = [field.name for field in layout.fields]
    keys = [
        sparse[names.index(key)] if key in names else single[i]
        for i, key in enumerate((data.encoder.user_key, data.encoder.item_key))
    ]
    return {
        "folder": str(folder),
        "name": NAME,
        "user": keys[0],
        "item": keys[1],
        "numerical": dense,
    }


def train_peer(
    python: Path, model: str, data: Mapping[str, Any], folder: Path, seed: int
) -> list[Probabilities]:
    """The probabilities of one of RecBole's models at every setting."""
    options = {
        **data,
        "model": model,
        "common": {**COMMON, **MODELS[model]},
        "settings": SETTINGS,
        "seed": seed,
        "threads": 1,
        "out": str(folder),
    }
    file = folder / f"{model}.json"
    file.write_text(json.dumps(options))
    done = subprocess.run(
        [str(python), str(PEER), str(file)], capture_output=True, text=True, cwd=folder, check=False
    )
    if done.returncode:
        raise SystemExit(f"RecBole's {model} failed: {done.stderr.strip()[-2000:]}")
    return [dict(np.load(folder / f"{model}-{i}.npz")) for i in range(len(SETTINGS))]


def compare(directory: Path, python: Path, models: Sequence[str], jobs: int) -> dict[str, Any]:
    """RecBole's models beside the systems of one run."""
    run = with_held_out_rows(directory)
    config, data = run_config(run), open_prepared(run.data)
    valid, test = data.split("valid"), data.split("test")
    assert valid.labels is not None
    trials = []
    with tempfile.TemporaryDirectory() as name:
        written = write_data(data, Path(name))
        with ThreadPoolExecutor(jobs) as pool:
            results = pool.map(
                lambda model: train_peer(python, model, written, Path(name), config.seed), models
            )
            for model, outcomes in zip(models, results, strict=True):
                for setting, found in zip(SETTINGS, outcomes, strict=True):
                    trial = {
                        "model": model,
                        **setting,
                        "valid_auc": auc(valid.labels, found["valid"], valid.sample_weight),
                        "seconds": float(found["seconds"]),
                    }
                    trials.append((trial, found["test"]))
                    print(json.dumps(trial), flush=True)
    best = {
        model: max((t for t in trials if t[0]["model"] == model), key=lambda t: t[0]["valid_auc"])
        for model in models
    }
    chosen = max(best, key=lambda model: float(best[model][0]["valid_auc"]))
    return {
        "run": directory.name,
        "dataset": data.name,
        "seed": config.seed,
        "chosen": chosen,
        "trials": [trial for trial, _ in trials],
        **_tested(run, test, {model: found for model, (_, found) in best.items()}, chosen),
        "settings": {model: trial for model, (trial, _) in best.items()},
    }


def _tested(
    run: RunDirectory, test: EncodedBatch, peers: Probabilities, chosen: str
) -> dict[str, Any]:
    """Test AUC of everything, and ours less the chosen peer's with paired intervals."""
    assert test.labels is not None
    config = run_config(run)
    scored = score_rows(RunSystems.load(run), test).probabilities
    paired = PairedAUC(
        test.labels,
        {**peers, **{name: scored[name] for name in OURS}},
        draws=config.report.bootstrap_draws,
        seed=config.seed,
        sample_weight=test.sample_weight,
    )
    minus_chosen = {name: paired.difference(name, chosen) for name in OURS}
    return {"test_auc": paired.value, "minus_chosen": minus_chosen}


def markdown(results: Mapping[str, Any]) -> str:
    """Per dataset: test AUC of every model and system, then the differences seed by seed."""
    parts = []
    for name, runs in grouped(results["runs"], "dataset").items():
        systems = list(runs[0]["test_auc"])
        rows = []
        for system in systems:
            values = [run["test_auc"][system] for run in runs]
            who = system.replace("_", " ") if system in OURS else f"RecBole's {system}"
            rows.append([who, mean_and_spread(values)])
        columns = ["seed", "best of RecBole's on validation", *(f"{n} − it [95 %]" for n in OURS)]
        paired = [
            [
                str(run["seed"]),
                f"{run['chosen']}, {run['test_auc'][run['chosen']]:.4f}",
                *(difference(run["minus_chosen"][n]) for n in OURS),
            ]
            for run in runs
        ]
        parts.append(
            f"### {name}\n\n{markdown_table(['system', 'test AUC'], rows)}\n\n"
            + markdown_table([c.replace("_", " ") for c in columns], paired)
        )
    note = (
        f"{RECBOLE}, {len(SETTINGS)} settings of learning rate and weight decay for each model, "
        "embeddings of 16, layers of 256, 128 and 64, early stopping; settings and the best model "
        "chosen on validation rows."
    )
    return "\n\n".join([*parts, note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("runs", type=Path, nargs="+", help="finished runs")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--jobs", type=int, default=1, help="models trained side by side")
    parser.add_argument("--cache", type=Path, default=CACHE, help="environments")
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    arguments = parser.parse_args()
    with one_sentence():
        python = peer_python(arguments.cache, RECBOLE, NEEDS, locked=False, alone=True)
        runs = [compare(r, python, arguments.models, arguments.jobs) for r in arguments.runs]
        result = {"runs": runs}
        write_result(arguments.out, result)
        print(markdown(result))


if __name__ == "__main__":
    main()
