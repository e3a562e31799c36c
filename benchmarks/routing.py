"""Routing where a student is behind its ensemble: the router against random routing.

    python -m benchmarks.routing RUN [RUN ...] --out benchmarks/out/routing.json

A distilled student that ranks as well as its teachers leaves nothing to route. So the pool, the
trio and the data of a finished run get other students here, one that never heard a teacher and
one too small to follow its own; neither inherits the pool's product of looked-up vectors, with
which even these keep up. Each has the stages of an ordinary run: it is trained, routes are
calibrated, the difficulty score and the threshold are chosen on `route` rows, graphs exported. On
test rows those that it finds hardest go to the ensemble, or as many drawn at random, at fixed
fractions and at the one that was chosen.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import (
    grouped,
    markdown_table,
    one_sentence,
    with_held_out_rows,
    write_result,
)
from dynens.batch import EncodedBatch
from dynens.bootstrap import PairedAUC, RandomRouteAUC
from dynens.config.run import load_run_config
from dynens.data.prepared import open_prepared
from dynens.evaluation.systems import RunSystems, Scored, score_rows
from dynens.metrics import auc
from dynens.report.write import run_config
from dynens.run import ROUTER_JSON, RunDirectory, read_json
from training.plan import finished_stages, plan
from training.reuse import reuse_stages, settings_of
from training.stage import run_stage

STUDENTS: dict[str, list[str]] = {
    "labels alone": [
        "distill.alpha.start=0",
        "distill.augmented_per_row=0",
        "distill.faithful.below=0",
        "distill.inherit=false",
    ],
    "embeddings of 2": [
        "student.embedding_dim=2",
        "student.hidden_units=[16]",
        "distill.inherit=false",
    ],
}
FRACTIONS = (0.1, 0.2, 0.3)


def with_student(run: RunDirectory, settings: list[str], root: Path) -> RunDirectory:
    """A run in `root` that has the pool of another, and a student, router and bundle of its own."""
    other = RunDirectory(root)
    dataset, given = settings_of(run.root)
    config = load_run_config(None, settings, given)
    given = {"data": dataset.model_dump(mode="json"), **config.model_dump(mode="json")}
    other.start(given, resume=False)
    reuse_stages(other, config, run.root)
    config = open_prepared(other.data).without_unsuited(config)
    stages = plan(config, other, 1)
    done = finished_stages(stages)
    for stage in stages:
        if stage.name not in done:
            run_stage(stage, other, config)
    return other


def evaluate_routing(run: RunDirectory, settings: list[str]) -> dict[str, Any]:
    """Test AUC of student, ensembles and both ways of routing with one student."""
    config, batch = run_config(run), open_prepared(run.data).split("test")
    assert batch.labels is not None
    with tempfile.TemporaryDirectory() as folder:
        systems = RunSystems.load(with_student(run, settings, Path(folder)))
        scored = score_rows(systems, batch)
        router = read_json(Path(folder) / "router" / ROUTER_JSON)
    hard = "static_ensemble_with_student"
    auc_of = {
        name: auc(batch.labels, scored.probabilities[name], batch.sample_weight)
        for name in ("student", "static_ensemble", hard)
    }
    fractions = {f"{fraction:.0%}": fraction for fraction in FRACTIONS}
    fractions["chosen"] = scored.hard_fraction
    return {
        "difficulty": router["difficulty"],
        "auc": auc_of,
        "routed": {
            name: routed(scored, batch, fraction, seed=config.seed)
            for name, fraction in fractions.items()
        },
    }


def routed(
    scored: Scored, batch: EncodedBatch, fraction: float, *, seed: int, draws: int = 500
) -> dict[str, Any]:
    """Both ways of routing at one fraction, and the router minus random, paired 95 % interval."""
    assert batch.labels is not None
    flags = np.zeros(len(batch), dtype=bool)
    flags[np.argsort(-scored.difficulty, kind="stable")[: round(fraction * len(batch))]] = True
    hard = scored.probabilities["static_ensemble_with_student"]
    chance = RandomRouteAUC(
        batch.labels, scored.probabilities["student"], hard, float(flags.mean())
    )
    paired = PairedAUC(
        batch.labels,
        {"router": scored.routed(flags), "random": chance},
        draws=draws,
        seed=seed,
        sample_weight=batch.sample_weight,
    )
    difference = paired.difference("router", "random")
    return {"fraction": fraction, **paired.value, "difference": difference}


def markdown(report: Mapping[str, Any]) -> str:
    """Test AUC per dataset, student and seed; of both ways of routing, with paired intervals."""
    columns = ["student", "seed", "alone", "trio", "trio and student"]
    columns += [f"{fraction:.0%} hard" for fraction in FRACTIONS] + ["as chosen"]
    parts = []
    for dataset, mine in grouped(report["results"], "dataset").items():
        rows = [
            [
                result["student"],
                str(result["seed"]),
                *(f"{value:.4f}" for value in result["auc"].values()),
                *(_cell(name, point) for name, point in result["routed"].items()),
            ]
            for result in sorted(mine, key=lambda r: list(STUDENTS).index(r["student"]))
        ]
        parts.append(f"### {dataset}\n\n{markdown_table(columns, rows)}\n")
    note = (
        "Test AUC. Under `hard`: rows chosen by the router / at random, and the paired interval "
        "of the difference."
    )
    return "\n".join([*parts, note])


def _cell(name: str, point: Mapping[str, Any]) -> str:
    """AUC of router / random, and the paired interval of their difference."""
    if not point["fraction"]:
        return "no hard rows"
    low, high = (point["difference"][end] for end in ("low", "high"))
    share = f"{point['fraction']:.0%}: " if name == "chosen" else ""
    return f"{share}{point['router']:.4f} / {point['random']:.4f} [{low:+.4f}, {high:+.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="finished run directories")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for directory in options.runs:
        with one_sentence():
            run = with_held_out_rows(directory)
            config = run_config(run)
        for name, settings in STUDENTS.items():
            found = evaluate_routing(run, settings)
            dataset = open_prepared(run.data).name
            results.append({"dataset": dataset, "seed": config.seed, "student": name, **found})
            write_result(options.out, {"results": results})
            print(markdown({"results": results[-1:]}), flush=True)
    print(markdown({"results": results}))


if __name__ == "__main__":
    main()
