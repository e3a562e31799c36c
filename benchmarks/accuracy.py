"""All systems on several datasets and seeds: AUC, cost, hard fraction, paired intervals.

    python -m benchmarks.accuracy --data movielens-1m kuairand-pure-history synthetic \
        --seeds 1 2 3 --out FILE.json [--runs FOLDER] [--set A.B=C ...]

Every (dataset, seed) is one `dynens fit` with the default configuration in FOLDER, but without a
second pass, so that here as in the libraries we compare with nothing but training rows trains a
model (`benchmarks.refit` tells what that pass adds); a finished run there is reused. KuaiRand is
read from the folder in DYNENS_DATA_HOME. Nothing is chosen on test rows. Where a made-up table's
`truth.json` stands beside it, the table tells the AUC of the true probabilities, too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import (
    difference,
    grouped,
    markdown_table,
    mean_and_spread,
    one_sentence,
    write_result,
)
from dynens.config.run import RunConfig, load_run_config
from dynens.data.datasets.presets import dataset_for
from dynens.errors import BadInputError
from dynens.report.console import relative_cost
from dynens.report.write import METRICS_JSON, write_report
from dynens.run import RunDirectory, read_json
from dynens.schema import DatasetConfig
from training.pipeline import fit
from training.reuse import settings_of

TRUTH = "truth.json"
CLAIMED = {
    "dynamic_minus_static_ensemble": "dynamic − static",
    "dynamic_minus_random_route": "dynamic − random",
    "student_minus_best_single": "student − best single",
}
COLUMNS = ("auc", "gauc", "logloss", "ece", "cost_us_per_row", "candidate_cost_us_per_row")


def run_once(dataset: DatasetConfig, config: RunConfig, out: Path) -> dict[str, Any]:
    """The metrics of one run, trained unless it is there.

    Raises:
        BadInputError: the one that is there has other settings.
    """
    report = out / "report" / METRICS_JSON
    if report.is_file():
        _, given = settings_of(out)
        given |= {"ray": None, "refit": RunDirectory(out).is_refitted}
        if given != {**config.model_dump(mode="json"), "ray": None}:
            raise BadInputError(f"{out} was trained with other settings; choose another --runs.")
        metrics: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return metrics
    run = fit(dataset, config, out, resume=out.exists())
    return write_report(RunDirectory.open(run.root))


def best_possible(dataset: DatasetConfig) -> dict[str, float]:
    """The AUC of the true probabilities on test rows, where they are known."""
    truth = Path(dataset.files[0]).parent / TRUTH
    return {"best_possible_auc": read_json(truth)["auc"]} if truth.is_file() else {}


def system_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Mean ± standard deviation over seeds of every system, as a Markdown table."""
    columns = ("system", "AUC", "GAUC", "logloss", "ECE", "µs/row", "in ranking requests")
    rows = []
    for name in results[0]["systems"]:
        cells = [_cell([r["systems"][name].get(c) for r in results], c) for c in COLUMNS]
        rows.append([name.replace("_", " "), *cells])
    return markdown_table(columns, rows)


def _cell(values: Sequence[float | None], column: str) -> str:
    digits = 1 if column.endswith("us_per_row") else 4
    return mean_and_spread([v for v in values if v is not None], digits=digits)


def claims(results: Sequence[Mapping[str, Any]]) -> str:
    """What the project claims, seed by seed."""
    columns = ["seed", "hard rows", *(f"{claim} [95 %]" for claim in CLAIMED.values())]
    columns += ["gain share", "dynamic vs. static ensemble", "AUC over baseline, relative"]
    rows = []
    for result in results:
        systems = result["systems"]
        dynamic, static = systems["dynamic"], systems["static_ensemble"]
        relative = dynamic["auc"] / systems["baseline"]["auc"] - 1
        share = result["transfer_efficiency"]["gain_share"]
        cells = [str(result["seed"]), f"{dynamic['hard_fraction']:.1%}"]
        cells += [difference(result["paired"][pair]) for pair in CLAIMED]
        cells += ["–" if share is None else f"{share:.2f}", relative_cost(dynamic, static)]
        rows.append([*cells, f"{relative:+.2%}"])
    return markdown_table(columns, rows)


def markdown(report: Mapping[str, Any]) -> str:
    """Tables of every dataset."""
    parts = []
    for name, results in grouped(report["results"], "dataset").items():
        rows, best = results[0]["rows"], results[0].get("best_possible_auc")
        known = "" if best is None else f" The true probabilities have an AUC of {best:.4f}."
        parts.append(
            f"### {name}\n\n{rows['train']:,} training, {rows['valid']:,} validation, "
            f"{rows['test']:,} test rows; seeds {', '.join(str(r['seed']) for r in results)}."
            f"{known}\n\n"
            f"{system_table(results)}\n\n{claims(results)}\n"
        )
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", required=True, help="presets or dataset.yaml files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    results = []
    for seed in arguments.seeds:
        for data in arguments.data:
            out = arguments.runs / f"{Path(data).stem}-{seed}"
            with one_sentence():
                settings = [f"seed={seed}", "refit=false", *arguments.settings]
                config, dataset = load_run_config(None, settings), dataset_for(data)
                results.append(run_once(dataset, config, out) | best_possible(dataset))
            write_result(arguments.out, {"results": results})
    print(markdown({"results": results}))


if __name__ == "__main__":
    main()
