"""INT8 against FP32, one network of a finished run at a time.

    python -m benchmarks.int8 RUN --out FILE.json

Every network is quantised anew from its FP32 graph, whatever the run itself serves; the run is not
changed. The two forms take turns on the same rows, one thread, in rounds; a cost is the median of a
round, and the table shows the median ratio of the rounds with their range. AUC is on `route` rows,
which decide, and on test rows, which do not.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import one_sentence, with_held_out_rows, write_result
from dynens.batch import EncodedBatch
from dynens.data.prepared import open_prepared
from dynens.ensemble.int8 import calibration_rows, try_int8
from dynens.ensemble.scorer import PoolScorer
from dynens.metrics import auc
from dynens.report.write import run_config
from training.int8 import fp32_graph
from training.valid_roles import valid_roles

BLOCK_ROWS = (1, 10, 100, 500)
ROUNDS = 5
REPEATS = 50


@dataclass(frozen=True)
class Rows:
    """Rows by role."""

    calibration: EncodedBatch
    route: EncodedBatch
    test: EncodedBatch


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    run = with_held_out_rows(arguments.run)
    data = open_prepared(run.data)
    config = data.without_unsuited(run_config(run))
    valid = data.split("valid")
    rows = Rows(
        calibration_rows(data.split("train"), config.seed),
        valid.take(valid_roles(config, valid).route),
        data.split("test"),
    )
    directories = {name: run.learner(name) for name in config.learners}
    directories |= {"baseline": run.baseline, "student": run.student}
    models = {}
    for name, directory in directories.items():
        models[name] = compare(fp32_graph(directory), rows)
        print(describe(name, models[name]), flush=True)
    write_result(arguments.out, {"dataset": data.name, "seed": config.seed, "models": models})


def compare(source: Path, rows: Rows) -> dict[str, Any]:
    """The trial as a run makes it, costs by block size, AUC on test rows, batch independence."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "int8.onnx"
        trial = try_int8(source, rows.calibration, rows.route, path)
        if trial.int8 is None:
            return trial.to_dict()
        scorer = PoolScorer({"fp32": source, "int8": path})
        costs = {
            count: [
                scorer.cost_us_per_row(rows.test, rows=count, repeats=REPEATS)
                for _ in range(ROUNDS)
            ]
            for count in BLOCK_ROWS
        }
        logits = scorer.logits(rows.test)
        labels, weight = rows.test.labels, rows.test.sample_weight
        assert labels is not None
        return {
            **trial.to_dict(),
            "test_auc": {form: auc(labels, z, weight) for form, z in logits.items()},
            "cost_us_per_row": costs,
            "mean_abs_logit_error": float(np.abs(logits["int8"] - logits["fp32"]).mean()),
            "largest_change_by_neighbours": _change_by_neighbours(scorer, rows.test, logits),
        }


def _change_by_neighbours(
    scorer: PoolScorer, batch: EncodedBatch, logits: dict[str, Any]
) -> dict[str, float]:
    """Largest difference between a row's logit alone and in a batch of thousands."""
    rows = range(min(len(batch), 1000))
    alone = [scorer.logits(batch.take(slice(row, row + 1))) for row in rows]
    return {
        form: max(abs(float(alone[row][form][0] - z[row])) for row in rows)
        for form, z in logits.items()
    }


def describe(name: str, result: dict[str, Any]) -> str:
    """Two lines about one network."""
    if result["int8"] is None:
        return f"{name}: {result['why']}"
    ratios = []
    for count, rounds in result["cost_us_per_row"].items():
        ratio = [costs["int8"] / costs["fp32"] for costs in rounds]
        fp32, int8 = (float(np.median([costs[form] for costs in rounds])) for form in rounds[0])
        ratios.append(
            f"{count} rows {fp32:.2f} -> {int8:.2f} µs/row "
            f"(x {np.median(ratio):.2f}, {min(ratio):.2f}-{max(ratio):.2f})"
        )
    size = [result[form]["size_bytes"] / 1000 for form in ("fp32", "int8")]
    change = result["test_auc"]["int8"] - result["test_auc"]["fp32"]
    return (
        f"{name}: {size[0]:.0f} -> {size[1]:.0f} KB, test AUC {change:+.5f}, "
        f"{'kept' if result['kept'] else 'refused'} on route rows ({result['why']})\n"
        f"    {'; '.join(ratios)}"
    )


if __name__ == "__main__":
    with one_sentence():
        main()
