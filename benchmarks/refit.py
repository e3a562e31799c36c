"""What the second pass of a run gains on its test rows, on which neither pass was trained.

    python -m benchmarks.refit RUN [RUN ...] --out benchmarks/out/refit.json

RUN is one that was fitted with `refit`. The first pass, whose validation rows trained nothing, gets
a bundle of its own from what it has finished, and both are evaluated on the same rows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import difference, grouped, markdown_table, one_sentence, write_result
from dynens.bootstrap import PairedAUC
from dynens.config.run import load_run_config
from dynens.data.prepared import open_prepared
from dynens.errors import BadInputError
from dynens.evaluation.systems import RunSystems, score_rows
from dynens.metrics import logloss
from dynens.report.write import run_config
from dynens.run import RunDirectory, read_json
from training.pipeline import fit
from training.plan import DONE, plan
from training.reuse import settings_of

SYSTEMS = ("baseline", "best_single", "student", "static_ensemble", "full_pool", "dynamic")


def compare(directory: Path) -> dict[str, Any]:
    """Both passes of one run.

    Raises:
        BadInputError: it has one pass only.
    """
    run = RunDirectory.open(directory)
    if not run.is_refitted:
        raise BadInputError(f"{run.root} has one pass only; fit it with refit=true.")
    config, data = run_config(run), open_prepared(run.data)
    batch = data.split("test")
    assert batch.labels is not None
    after = score_rows(RunSystems.load(run), batch)
    with tempfile.TemporaryDirectory() as folder:
        dataset, given = settings_of(run.root)
        single = load_run_config(None, ["refit=false"], given)
        first = fit(dataset, single, Path(folder) / "first", reuse=run.root)
        rows = open_prepared(first.data).split("test")
        before = score_rows(RunSystems.load(first), rows)
    scores = {f"{name} 0": before.probabilities[name] for name in SYSTEMS}
    scores |= {f"{name} 1": after.probabilities[name] for name in SYSTEMS}
    paired = PairedAUC(
        batch.labels,
        scores,
        draws=config.report.bootstrap_draws,
        seed=config.seed,
        sample_weight=batch.sample_weight,
    )
    systems = {}
    rate = np.average(batch.labels, weights=batch.sample_weight)
    for name in SYSTEMS:
        old, new = passes = (f"{name} 0", f"{name} 1")
        losses = (logloss(batch.labels, scores[k], batch.sample_weight) for k in passes)
        foretold = (np.average(scores[k], weights=batch.sample_weight) for k in passes)
        systems[name] = {
            "auc": (paired.value[old], paired.value[new]),
            "gain": paired.difference(new, old),
            "logloss": tuple(losses),
            "calibration_ratio": tuple(float(mean / rate) for mean in foretold),
        }
    return {
        "dataset": data.name,
        "seed": config.seed,
        "rows": data.rows,
        "hard_fraction": (before.hard_fraction, after.hard_fraction),
        "minutes": tuple(_minutes(place) for place in (run.held_out, run)),
        "systems": systems,
    }


def _minutes(run: RunDirectory) -> float:
    """Of all stages together, as many of which run side by side as there are cores."""
    marks = (s.directory / DONE for s in plan(run_config(run), run, 1))
    return float(sum(read_json(mark)["seconds"] for mark in marks if mark.is_file())) / 60


def markdown(report: Mapping[str, Any]) -> str:
    """A table of every dataset."""
    parts = []
    for dataset, runs in grouped(report["results"], "dataset").items():
        rows = []
        for name in SYSTEMS:
            for run in runs:
                (old, new), gain = run["systems"][name]["auc"], run["systems"][name]["gain"]
                loss, ratio = (run["systems"][name][k] for k in ("logloss", "calibration_ratio"))
                rows.append(
                    (
                        name.replace("_", " "),
                        str(run["seed"]),
                        f"{old:.4f}",
                        f"{new:.4f}",
                        difference(gain),
                        "{:.4f} → {:.4f}".format(*loss),
                        "{:.3f} → {:.3f}".format(*ratio),
                    )
                )
        header = ("system", "seed", "first pass", "second pass", "gain [95 %]", "logloss")
        header += ("predicted / observed positives",)
        counts = runs[0]["rows"]
        hard = ", ".join("{:.1%} → {:.1%}".format(*r["hard_fraction"]) for r in runs)
        minutes = ", ".join("{:.1f} + {:.1f}".format(*r["minutes"]) for r in runs)
        parts.append(
            f"### {dataset}\n\n{counts['train']:,} training rows, in the second pass "
            f"{counts['valid']:,} validation rows as well; {counts['test']:,} test rows. "
            f"Hard rows: {hard}. Minutes of all stages: {minutes}.\n\n"
            f"{markdown_table(header, rows)}\n"
        )
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="runs that were refitted")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    results = []
    for directory in arguments.runs:
        with one_sentence():
            results.append(compare(directory))
    report = {"results": results}
    write_result(arguments.out, report)
    print(markdown(report))


if __name__ == "__main__":
    main()
