"""Evaluating a run and writing its report directory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dynens.batch import EncodedBatch
from dynens.config.base import validate
from dynens.config.run import RunConfig
from dynens.data.prepared import PreparedData, open_prepared
from dynens.errors import BadInputError
from dynens.evaluation.evaluate import evaluate_rows, student_stability
from dynens.evaluation.systems import RunSystems, Scored
from dynens.run import RunDirectory, no_empty_folders, write_json

METRICS_JSON = "metrics.json"


def run_config(run: RunDirectory) -> RunConfig:
    """The configuration a run was made with, its data section apart."""
    settings = run.read_config()
    settings.pop("data", None)
    return validate(RunConfig, settings, str(run.config))


def evaluate_run(
    run: RunDirectory, source: str | None = None, warn: Callable[[str], None] | None = None
) -> tuple[dict[str, Any], Scored, EncodedBatch]:
    """Evaluate a finished run on its test split, or on another labelled table.

    Args:
        run: the run.
        source: the table; None: the test split.
        warn: told what of `source` counts as missing, and why.

    Raises:
        BundleError: the run is unfinished or damaged.
        DataError: `source` cannot be read or has no label.
    """
    systems = RunSystems.load(run)
    data = open_prepared(run.data)
    config = run_config(run)
    batch = data.split("test") if source is None else data.encode_file(source, warn)
    if not len(batch):
        raise BadInputError("the test split is empty; give rows with --data FILE.")
    rows = dict(data.rows) if source is None else {**data.rows, "test": len(batch)}
    metrics, scored = evaluate_rows(
        systems,
        batch,
        dataset=data.name if source is None else f"{data.name} on {Path(source).name}",
        seed=config.seed,
        rows=rows,
        options=config.report,
        stability=student_stability(run),
    )
    metrics["refit"] = data.trains_on_valid
    return metrics, scored, batch


def write_report(run: RunDirectory) -> dict[str, Any]:
    """Evaluate the test split and write `report/`: metrics.json, plots and report.html.

    Raises:
        BundleError: the run is unfinished or damaged.
        BadInputError: `report/` cannot be written.
    """
    from dynens.report.html import render  # plots need the train extra

    with no_empty_folders(run.report):
        with _writing(run.report):  # found out before the long work
            run.report.mkdir(exist_ok=True)
        metrics, scored, batch = evaluate_run(run)
        data: PreparedData = open_prepared(run.data)
        with _writing(run.report):
            write_json(run.report / METRICS_JSON, metrics)
            render(run, metrics, scored, batch, data)
    return metrics


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise BadInputError(
            f"{folder} cannot be written ({e.strerror or e}); let it be a folder with room for the "
            "report."
        ) from e
