"""A confidence cascade against the router, on the test rows of finished runs.

    python -m benchmarks.cascade RUN [RUN ...] --out benchmarks/out/cascade.json

The cascade is what one would build without a learned router: the student answers the rows of which
it is sure, and the rows with the smallest margin |z| (z the student's own logit) go to the
ensemble. At equal mean cost it gets as many rows as the dynamic system sent there, counted on the
test rows. Two answers for those rows are compared: the trio alone, as cascades have it, and the
hard route of dynens, where the student's logit is kept as a fourth voice; costs differ by less than
a weighted sum. Nothing is fitted here. Where the run's router chose the margin as difficulty, the
second cascade is the dynamic system itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common import (
    difference,
    grouped,
    markdown_table,
    mean_and_spread,
    one_sentence,
    write_result,
)
from dynens.batch import EncodedBatch
from dynens.bootstrap import PairedAUC
from dynens.data.prepared import open_prepared
from dynens.evaluation.evaluate import CURVE_FRACTIONS
from dynens.evaluation.systems import RunSystems, Scored, score_rows
from dynens.metrics import auc, evaluate_probabilities
from dynens.report.write import METRICS_JSON, run_config
from dynens.run import ROUTER_JSON, RunDirectory, read_json

Probabilities = npt.NDArray[np.floating]
CASCADES = {"cascade": "static_ensemble", "cascade_with_student": "static_ensemble_with_student"}
TABLE = (
    "baseline",
    "best_single",
    "student",
    "random_route",
    *CASCADES,
    "dynamic",
    "static_ensemble",
)


def least_sure(logit: Probabilities, count: int) -> npt.NDArray[np.bool_]:
    """Flags of the `count` rows with the smallest |z| (ties in the order given).

    Args:
        logit: (N,) the student's logits.
        count: between 0 and N.
    """
    flags = np.zeros(len(logit), dtype=bool)
    flags[np.argsort(np.abs(logit), kind="stable")[:count]] = True
    return flags


def cascaded(scored: Scored, count: int, hard_system: str) -> Probabilities:
    """Probabilities when the `count` least sure rows are answered by `hard_system`."""
    hard = least_sure(scored.logits["student"], count)
    return np.where(hard, scored.probabilities[hard_system], scored.probabilities["student"])


def evaluate_cascades(directory: Path) -> dict[str, Any]:
    """The systems of one run with both cascades beside them."""
    run = RunDirectory.open(directory)
    metrics = read_json(run.report / METRICS_JSON)
    systems, batch = RunSystems.load(run), open_prepared(run.data).split("test")
    assert batch.labels is not None
    scored = score_rows(systems, batch)
    count = int(scored.route.sum())
    probabilities = {name: cascaded(scored, count, hard) for name, hard in CASCADES.items()}
    table = {name: metrics["systems"][name] for name in TABLE if name not in CASCADES}
    dynamic = table["dynamic"]
    for name, probability in probabilities.items():
        values = vars(
            evaluate_probabilities(batch.labels, probability, batch.sample_weight, batch.groups)
        )
        table[name] = {
            **values,
            "cost_us_per_row": dynamic["cost_us_per_row"],
            "hard_fraction": scored.hard_fraction,
        }
    return {
        "dataset": metrics["dataset"],
        "seed": metrics["seed"],
        "rows": metrics["rows"],
        "difficulty": read_json(run.router / ROUTER_JSON)["difficulty"],
        "systems": {name: table[name] for name in TABLE},
        "curve": curve(scored, batch, metrics["auc_cost_curve"]["router"]),
        "paired": paired(run, scored, batch, probabilities),
    }


def curve(
    scored: Scored, batch: EncodedBatch, router: Sequence[Mapping[str, float]]
) -> list[dict[str, float]]:
    """AUC of the cascade (trio alone) at the fractions and costs of the router's curve."""
    assert batch.labels is not None
    cost = {point["hard_fraction"]: point["cost_us_per_row"] for point in router}
    points = []
    for fraction in CURVE_FRACTIONS:
        probability = cascaded(scored, round(fraction * len(batch)), CASCADES["cascade"])
        points.append(
            {
                "hard_fraction": fraction,
                "auc": auc(batch.labels, probability, batch.sample_weight),
                "cost_us_per_row": cost[fraction],
            }
        )
    return points


def paired(
    run: RunDirectory, scored: Scored, batch: EncodedBatch, cascades: Mapping[str, Probabilities]
) -> dict[str, dict[str, float]]:
    """Dynamic minus each cascade in AUC, with paired 95 % bootstrap intervals."""
    assert batch.labels is not None
    config = run_config(run)
    paired = PairedAUC(
        batch.labels,
        {"dynamic": scored.probabilities["dynamic"], **cascades},
        draws=config.report.bootstrap_draws,
        seed=config.seed,
        sample_weight=batch.sample_weight,
    )
    return {f"dynamic_minus_{name}": paired.difference("dynamic", name) for name in cascades}


def markdown(report: Mapping[str, Any]) -> str:
    """Per dataset: AUC at cost of every system (mean over seeds), then the paired differences."""
    parts = []
    for dataset, mine in grouped(report["results"], "dataset").items():
        parts.append(f"### {dataset}\n\n{_systems(mine)}\n\n{_differences(mine)}\n")
    return "\n".join(parts)


def _systems(results: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for name in TABLE:
        values = [r["systems"][name] for r in results]
        hard = [v["hard_fraction"] for v in values if "hard_fraction" in v]
        rows.append(
            [
                name.replace("_", " "),
                mean_and_spread([v["auc"] for v in values]),
                mean_and_spread([v["logloss"] for v in values]),
                f"{np.mean([v['cost_us_per_row'] for v in values]):.1f}",
                f"{np.mean(hard):.1%}" if hard else "–",
            ]
        )
    return markdown_table(["system", "AUC", "logloss", "µs/row", "hard rows"], rows)


def _differences(results: Sequence[Mapping[str, Any]]) -> str:
    columns = ["seed", "router's difficulty"]
    columns += [f"dynamic − {name.replace('_', ' ')} [95 %]" for name in CASCADES]
    rows = []
    for result in results:
        cells = [difference(result["paired"][f"dynamic_minus_{name}"]) for name in CASCADES]
        rows.append([str(result["seed"]), result["difficulty"].replace("_", " "), *cells])
    return markdown_table(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="finished run directories")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    options = parser.parse_args()
    with one_sentence():
        report = {"results": [evaluate_cascades(run) for run in options.runs]}
    write_result(options.out, report)
    print(markdown(report))


if __name__ == "__main__":
    main()
