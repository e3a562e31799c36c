"""Tables nobody prepared, against what a notebook gives on the same rows.

    python -m benchmarks.tables hmda.csv=deny titanic.csv=survived --seeds 1 2 3 --out FILE.json

Every FILE=LABEL is cut 70/15/15 at random by the seed, and `dynens fit` infers everything else.
scikit-learn's HistGradientBoostingClassifier (categories as such) and LogisticRegression (one-hot,
imputed, scaled) get the same training rows with their defaults. The table shows test AUC; nothing
is chosen by it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from benchmarks.common import (
    grouped,
    markdown_table,
    mean_and_spread,
    one_sentence,
    write_result,
)
from dynens.config.run import load_run_config
from dynens.data.datasets.presets import dataset_from_files
from dynens.data.prepared import open_prepared
from dynens.errors import BadInputError
from dynens.report.write import write_report
from dynens.run import RunDirectory
from training.pipeline import fit

PARTS = {"train": 0.7, "valid": 0.15, "test": 0.15}
SYSTEMS = ("best_single", "student", "static_ensemble", "dynamic")
NOTEBOOKS = {"hgb": "boosted trees", "lr": "logistic regression"}
# Less frequent values share one column of the one-hot encoding, and trees take at most so many.
_MIN_FREQUENCY, _MAX_CATEGORIES = 5, 250


def cut(path: Path, seed: int, folder: Path) -> dict[str, Path]:
    """Write the parts of a table as CSV files."""
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    order = np.random.default_rng(seed).permutation(len(table))
    ends = np.cumsum([round(share * len(table)) for share in PARTS.values()])[:-1]
    files = {}
    for name, rows in zip(PARTS, np.split(order, ends), strict=True):
        files[name] = folder / f"{name}.csv"
        table.iloc[rows].to_csv(files[name], index=False)
    return files


def run_once(path: Path, label: str, seed: int, settings: Sequence[str] = ()) -> dict[str, Any]:
    """AUC on test rows of every system and notebook model."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {part: str(file) for part, file in cut(path, seed, folder).items()}
        dataset = dataset_from_files(
            files["train"], label=label, valid=files["valid"], test=files["test"]
        )
        run = fit(dataset, load_run_config(None, [f"seed={seed}", *settings]), folder / "run")
        metrics = write_report(RunDirectory.open(run.root))
        prepared = open_prepared(run.data)
        labels = {part: prepared.split(part).labels for part in ("train", "test")}
        column = dataset.features.label.column
        models = notebooks(
            *(features(files[part], column, labels[part]) for part in ("train", "test")),
            labels["train"],
            labels["test"],
            seed,
        )
    systems = {system: metrics["systems"][system]["auc"] for system in SYSTEMS}
    hard = metrics["systems"]["dynamic"]["hard_fraction"]
    return {"table": path.stem, "seed": seed, **systems, **models, "hard_fraction": hard}


def features(file: str, label: str, labels: Any) -> pd.DataFrame:
    """A part's columns without the label."""
    table = pd.read_csv(file)
    if len(table) != len(labels):
        raise BadInputError(
            f"{len(table) - len(labels)} rows of {Path(file).stem} have no label; leave them out "
            "of the table, so that every model gets the same rows."
        )
    return table.drop(columns=[label])


def notebooks(
    train: pd.DataFrame, test: pd.DataFrame, train_labels: Any, test_labels: Any, seed: int
) -> dict[str, float]:
    """Test AUC of the models that a notebook would try first."""
    numeric = list(train.select_dtypes("number").columns)
    categorical = [name for name in train.columns if name not in numeric]
    train, test = train.copy(), test.copy()
    for table in (train, test):
        table[categorical] = table[categorical].astype(object).fillna("missing").astype(str)
    ordinal = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        max_categories=_MAX_CATEGORIES,
    )
    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=_MIN_FREQUENCY)
    scaled = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    models = {
        "hgb": make_pipeline(
            make_column_transformer((ordinal, categorical), ("passthrough", numeric)),
            HistGradientBoostingClassifier(
                categorical_features=list(range(len(categorical))), random_state=seed
            ),
        ),
        "lr": make_pipeline(
            make_column_transformer((one_hot, categorical), (scaled, numeric)),
            LogisticRegression(max_iter=2000),
        ),
    }
    return {
        name: float(
            roc_auc_score(test_labels, model.fit(train, train_labels).predict_proba(test)[:, 1])
        )
        for name, model in models.items()
    }


def markdown(data: Mapping[str, Any]) -> str:
    """Mean and spread of test AUC over seeds, one row per table."""
    columns = ("table", *NOTEBOOKS.values(), *(s.replace("_", " ") for s in SYSTEMS), "hard rows")
    rows = []
    for name, own in grouped(data["results"], "table").items():
        cells = [mean_and_spread([r[key] for r in own], digits=3) for key in (*NOTEBOOKS, *SYSTEMS)]
        rows.append([name, *cells, f"{np.mean([r['hard_fraction'] for r in own]):.0%}"])
    return markdown_table(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="+", metavar="FILE=LABEL")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    results = []
    with one_sentence():
        for seed in arguments.seeds:
            for given in arguments.tables:
                path, separator, label = given.partition("=")
                if not separator:
                    raise BadInputError(f"{given} names no label; give FILE=LABEL.")
                results.append(run_once(Path(path), label, seed, arguments.settings))
                print(json.dumps(results[-1]), flush=True)
                report = {"settings": arguments.settings, "results": results}
                write_result(arguments.out, report)
    print(markdown({"results": results}))


if __name__ == "__main__":
    with one_sentence():
        main()
