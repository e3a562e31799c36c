"""Ten XGBoost variants and a meta-learner, on the prepared rows and beside the pool of a run.

    python -m benchmarks.stacking RUN --out FILE.json

The variants differ in depth, learning rate, rows, columns, leaf weight and seed. They and the run's
own learners are combined by every method of `ensemble.weight_methods` (`stacking` is logistic
regression) and by boosted trees over their logits. Meta-learners are fitted on `select` rows, which
trained no learner, and nothing is chosen on test rows. The run is not changed; its networks are the
same for every seed.

References:
    Wolpert, "Stacked Generalization", Neural Networks 5(2), 1992.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost

from benchmarks.common import (
    grouped,
    markdown_table,
    mean_and_spread,
    one_sentence,
    with_held_out_rows,
    write_result,
)
from dynens.config.learner import LearnerConfig, TreesConfig
from dynens.data.prepared import open_prepared
from dynens.ensemble.blend import Blend
from dynens.ensemble.scorer import PoolScorer
from dynens.ensemble.weights import WEIGHTS
from dynens.metrics import auc
from dynens.models.registry import build_learner
from dynens.report.write import run_config
from dynens.run import MODEL_ONNX, RunDirectory
from training.stages import calibrate_as, labels_of, pool_logits, weights_of
from training.valid_roles import valid_roles

# Depth, learning rate, subsample, colsample_bytree, reg_lambda.
TREES = (
    (6, 0.1, 0.8, 0.8, 5.0),
    (3, 0.2, 0.8, 0.8, 5.0),
    (4, 0.15, 0.9, 0.6, 1.0),
    (5, 0.1, 0.6, 0.9, 1.0),
    (5, 0.2, 0.7, 0.5, 10.0),
    (6, 0.15, 0.5, 0.6, 20.0),
    (7, 0.1, 0.7, 0.4, 5.0),
    (7, 0.07, 0.9, 0.7, 2.0),
    (8, 0.1, 0.5, 0.5, 20.0),
    (8, 0.05, 0.6, 0.7, 10.0),
)
BOOSTED = {"max_depth": 2, "eta": 0.1, "min_child_weight": 20, "lambda": 5.0, "nthread": 1}
BOOSTED_ROUNDS = 50


def variants() -> dict[str, LearnerConfig]:
    """Ten learners of boosted trees."""
    keys = ("max_depth", "learning_rate", "subsample", "colsample_bytree", "reg_lambda")
    return {
        f"trees-{number}": LearnerConfig(
            model="xgboost",
            trees=TreesConfig.model_validate(dict(zip(keys, values, strict=True))),
        )
        for number, values in enumerate(TREES)
    }


@dataclass(frozen=True)
class Member:
    """A learner's calibrated logits of `select` and test rows, and what it costs."""

    select: npt.NDArray[np.float32]
    test: npt.NDArray[np.float32]
    us_per_row: float
    seconds: float


@dataclass(frozen=True)
class Rows:
    """Labels and weights of the rows that fit a meta-learner, or of those that judge it."""

    labels: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]


class Study:
    """The rows and roles of a run, for learners and their combinations.

    Args:
        run: a finished run.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run, self.data = run, open_prepared(run.data)
        self.config = self.data.without_unsuited(run_config(run))
        self.valid, self.test = self.data.split("valid"), self.data.split("test")
        self.roles = valid_roles(self.config, self.valid)
        stop_rows = self.valid.take(self.roles.select)
        self.select = Rows(labels_of(stop_rows), weights_of(stop_rows))
        self.judged = Rows(labels_of(self.test), weights_of(self.test))

    def own_pool(self) -> dict[str, Member]:
        """The run's learners."""
        names = tuple(self.config.learners)
        valid, test = (pool_logits(self.run, names, split) for split in ("valid", "test"))
        scorer = PoolScorer({name: self.run.learner(name) / MODEL_ONNX for name in names})
        cost = scorer.cost_us_per_row(self.valid, layout=self.data.layout)
        return {n: self._member(valid[n], test[n], cost[n], 0.0) for n in names}

    def trained(self, configs: Mapping[str, LearnerConfig], seed: int) -> dict[str, Member]:
        """Further learners, each with a seed of its own."""
        members = {}
        for number, (name, config) in enumerate(configs.items()):
            started = time.monotonic()
            learner = build_learner(config, self.data.layout, self.data.stats, 1000 * seed + number)
            learner.fit(self.data.split("train"), self.valid.take(self.roles.select))
            seconds = time.monotonic() - started
            with tempfile.TemporaryDirectory() as folder:
                learner.export_onnx(Path(folder) / MODEL_ONNX)
                scorer = PoolScorer({name: Path(folder) / MODEL_ONNX})
                cost = scorer.cost_us_per_row(self.valid, layout=self.data.layout)[name]
            logits = (learner.predict_logits(rows) for rows in (self.valid, self.test))
            members[name] = self._member(*logits, cost, seconds)
        return members

    def _member(
        self,
        valid: npt.NDArray[np.float32],
        test: npt.NDArray[np.float32],
        us_per_row: float,
        seconds: float,
    ) -> Member:
        route = self.roles.route
        calibrated = calibrate_as(
            self.config,
            Blend({"one": 1.0}),
            {"one": valid[route]},
            labels_of(self.valid)[route],
            weights_of(self.valid)[route],
        ).blend
        select = calibrated.logit({"one": valid[self.roles.select]})
        return Member(select, calibrated.logit({"one": test}), us_per_row, seconds)

    def combined(self, members: Sequence[Member], seed: int) -> dict[str, float]:
        """Test AUC of the members' combinations, and of the one that is best on `select` rows."""
        select, test = (
            np.stack([getattr(m, part) for m in members], axis=1) for part in ("select", "test")
        )
        y, w = self.select.labels, self.select.weight
        logits = {name: test @ fit(select, y, w, seed) for name, fit in WEIGHTS.items()}
        logits["boosted"] = boosted(select, y, w, test, seed)
        best = np.argmax([auc(y, z, w) for z in select.T])
        logits["best single"] = test[:, best]
        judged = self.judged
        return {name: auc(judged.labels, z, judged.weight) for name, z in logits.items()}


def boosted(
    select: npt.NDArray[np.float32],
    labels: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
    test: npt.NDArray[np.float32],
    seed: int,
) -> npt.NDArray[np.float32]:
    """Boosted trees over the members' logits, on top of their mean.

    Args:
        select, test: (N, M) and (T, M) logits.
        labels, weight: (N,) of the rows that fit the trees.
        seed: of XGBoost.

    Returns:
        (T,) logits.
    """
    fitted = xgboost.DMatrix(select, labels, weight=weight, base_margin=select.mean(axis=1))
    settings = {**BOOSTED, "objective": "binary:logistic", "seed": seed}
    trees = xgboost.train(settings, fitted, num_boost_round=BOOSTED_ROUNDS)
    judged = xgboost.DMatrix(test, base_margin=test.mean(axis=1))
    return np.asarray(trees.predict(judged, output_margin=True))


def results_of(run: RunDirectory, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every pool on every seed."""
    study = Study(run)
    own = study.own_pool()
    nets = {n: m for n, m in own.items() if study.config.learners[n].model != "xgboost"}
    results = []
    for seed in seeds:
        ten = study.trained(variants(), seed)
        for name, pool in (("the run's pool", own), ("ten", ten), ("networks and ten", nets | ten)):
            members = list(pool.values())
            row = {"pool": name, "seed": seed, "members": len(members)}
            row |= {"seconds": sum(m.seconds for m in members)}
            row |= {"us_per_row": sum(m.us_per_row for m in members)}
            results.append(row | {"test_auc": study.combined(members, seed)})
            print(results[-1], flush=True)
    return results


def markdown(report: Mapping[str, Any]) -> str:
    """Mean ± standard deviation over seeds of every pool and combination as a Markdown table."""
    results = report["results"]
    methods = list(results[0]["test_auc"])
    rows = []
    for name, own in grouped(results, "pool").items():
        aucs = [mean_and_spread([r["test_auc"][m] for r in own]) for m in methods]
        costs = [np.mean([r[key] for r in own]) for key in ("us_per_row", "seconds")]
        rows.append((name, *aucs, f"{costs[0]:.1f}", f"{costs[1]:.0f}"))
    columns = ("pool", *methods, "µs/row", "seconds to train")
    note = "Test AUC. The run's own learners are the same for every seed, and cost no seconds here."
    return f"{markdown_table(columns, rows)}\n\n{note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="finished run whose rows and pool are used")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    run = with_held_out_rows(arguments.run)
    report = {"run": run.root.name, "results": results_of(run, arguments.seeds)}
    write_result(arguments.out, report)
    print(markdown(report))


if __name__ == "__main__":
    with one_sentence():
        main()
