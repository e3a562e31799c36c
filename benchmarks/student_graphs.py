"""What students' graphs are worth in ONNX Runtime, in float32 and in INT8."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import grouped, markdown_table, mean_and_spread
from dynens.data.prepared import PreparedData
from dynens.ensemble.int8 import calibration_rows
from dynens.ensemble.scorer import PoolScorer
from dynens.metrics import auc
from dynens.models.net_learner import NetLearner
from dynens.models.quantize import quantize_graph

REPEATS = 300
FORMS = ("fp32", "int8")


def graph_figures(
    learner: NetLearner, reference: Path, data: PreparedData, seed: int
) -> dict[str, float]:
    """Test AUC, size and time of a student's graph in both forms.

    Times are of 100 candidates of one request on one thread, per row, and in turns with those of
    the `reference` graph, so that their ratio is that of one moment.
    """
    test = data.split("test")
    assert test.labels is not None
    with tempfile.TemporaryDirectory() as folder:
        paths = {form: Path(folder) / f"{form}.onnx" for form in FORMS}
        learner.export_onnx(paths["fp32"])
        rows = calibration_rows(data.split("train"), seed)
        if not quantize_graph(paths["fp32"], rows, paths["int8"]):
            del paths["int8"]
        scorer = PoolScorer({"reference": reference, **paths})
        times = scorer.cost_us_per_row(test, repeats=REPEATS, layout=data.layout)
        logits = scorer.logits_of(tuple(paths), test)
        figures = {"reference_us_per_row": times["reference"]}
        for form, path in paths.items():
            figures[f"{form}_test"] = auc(test.labels, logits[form], test.sample_weight)
            figures[f"{form}_us_per_row"] = times[form]
            figures[f"{form}_size_bytes"] = float(path.stat().st_size)
    return figures


def graphs_table(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Students' graphs as a Markdown table; empty where none was measured."""
    columns = (
        "variant",
        "test AUC",
        "INT8 − FP32",
        "time",
        "INT8 time",
        "KB",
        "INT8 KB",
        "seconds",
    )
    measured = grouped((r for r in results if "int8_test" in r), "variant")
    rows = [(name, *_figures(measured[name])) for name in names if name in measured]
    if not rows:
        return ""
    note = (
        "Of the exported graphs, in ONNX Runtime. Test AUC: of the INT8 form. Time: of 100 "
        "candidates of one request, per row, as a share of what the run's own student takes in "
        "float32, measured in turns with it. Seconds: of training."
    )
    return f"{markdown_table(columns, rows)}\n\n{note}"


def _figures(own: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    shares = {f: [r[f"{f}_us_per_row"] / r["reference_us_per_row"] for r in own] for f in FORMS}
    return (
        mean_and_spread([r["int8_test"] for r in own], digits=5),
        mean_and_spread([r["int8_test"] - r["fp32_test"] for r in own], sign="+", digits=5),
        *(f"{np.mean(shares[form]):.2f}" for form in FORMS),
        *(f"{np.mean([r[f'{form}_size_bytes'] for r in own]) / 1000:.0f}" for form in FORMS),
        f"{np.mean([r['seconds'] for r in own]):.0f}",
    )
