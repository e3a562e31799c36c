"""Accuracy of learners and pools on real tables; everything is chosen on validation rows.

    python -m benchmarks.pool_study pool --data movielens-1m --out pool.json
    python -m benchmarks.pool_study grid --data movielens-1m --model dnn \
        --set optimizer.embedding_l2=1e-4,3e-4 --set dropout=0.1,0.3 --out grid.json

`pool` trains every learner on each seed and prints, per learner, AUC on validation and test, the
single learner and the trio of averaged logits that are best on validation, and correlations of
logits. `grid` trains one learner for every combination of settings. The JSON holds all of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.common import mean_and_spread, one_sentence, write_result
from dynens import metrics
from dynens.batch import FloatArray
from dynens.config.base import apply_overrides, validate
from dynens.config.learner import LearnerConfig
from dynens.data.datasets.presets import dataset_for
from dynens.data.prepare import prepare
from dynens.data.prepared import PreparedData
from dynens.models.base import FitOptions
from dynens.models.registry import MODELS, build_learner

DEFAULT_POOL = ("lr", "fm", "dnn", "deepfm", "dcnv2", "ipnn", "masknet", "finalmlp", "xgboost")


@dataclass(frozen=True)
class Result:
    """One trained learner on one seed."""

    name: str
    seed: int
    settings: dict[str, Any]
    valid_auc: float
    test_auc: float
    best_epoch: float
    epochs: float
    seconds: float
    valid_logits: FloatArray
    test_logits: FloatArray

    def summary(self) -> dict[str, Any]:
        skipped = {"valid_logits", "test_logits"}
        return {k: v for k, v in vars(self).items() if k not in skipped}


def train(data: PreparedData, config: LearnerConfig, seed: int, settings: dict[str, Any]) -> Result:
    """Fit one learner and score validation and test rows."""
    valid, test = data.split("valid"), data.split("test")
    learner = build_learner(config, data.layout, data.stats, seed)
    report = learner.fit(data.split("train"), valid, FitOptions(unlabelled=data.unlabelled))
    valid_logits, test_logits = learner.predict_logits(valid), learner.predict_logits(test)
    assert valid.labels is not None
    assert test.labels is not None
    result = Result(
        name=config.display_name,
        seed=seed,
        settings=settings,
        valid_auc=metrics.auc(valid.labels, valid_logits, valid.sample_weight),
        test_auc=metrics.auc(test.labels, test_logits, test.sample_weight),
        best_epoch=report.best_epoch,
        epochs=report.curve[-1].epoch,
        seconds=report.seconds,
        valid_logits=valid_logits,
        test_logits=test_logits,
    )
    print(
        f"seed {seed} {result.name:10s} {settings or ''} valid {result.valid_auc:.5f} "
        f"test {result.test_auc:.5f} best epoch {result.best_epoch:.1f} of {result.epochs:.1f} "
        f"{result.seconds:.0f} s",
        flush=True,
    )
    return result


def best_trio(data: PreparedData, results: list[Result]) -> dict[str, Any]:
    """The three learners whose mean logit has the best validation AUC."""
    size = min(3, len(results))

    def auc(members: tuple[Result, ...], split: str) -> float:
        rows = data.split(split)
        assert rows.labels is not None
        logits = np.mean([vars(m)[f"{split}_logits"] for m in members], axis=0)
        return metrics.auc(rows.labels, logits, rows.sample_weight)

    trios = itertools.combinations(results, size)
    best = max(trios, key=lambda trio: auc(trio, "valid"))
    return {
        "members": [member.name for member in best],
        "valid_auc": auc(best, "valid"),
        "test_auc": auc(best, "test"),
    }


def pool(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every learner on every seed, the best single one and the best trio of each seed."""
    seeds: list[dict[str, Any]] = []
    names = arguments.learners
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            data = prepared(arguments, seed, Path(folder))
            results = [train(data, config_of(name, arguments), seed, {}) for name in names]
            single = max(results, key=lambda r: r.valid_auc)
            trio = best_trio(data, results)
            seeds.append(
                {
                    "seed": seed,
                    "learners": [r.summary() for r in results],
                    "best_single": {"name": single.name, "test_auc": single.test_auc},
                    "best_trio": trio,
                    "correlation": np.corrcoef([r.test_logits for r in results]).tolist(),
                }
            )
            print(f"seed {seed} best single {single.name} {single.test_auc:.5f}, trio {trio}")
    aucs = {kind: [s[kind]["test_auc"] for s in seeds] for kind in ("best_single", "best_trio")}
    for i, name in enumerate(names):
        aucs[name] = [s["learners"][i]["test_auc"] for s in seeds]
    for name, values in aucs.items():
        print(f"{name}: test AUC {mean_and_spread(values, digits=5)}")
    return {"names": names, "seeds": seeds, "test_auc": aucs}


def grid(arguments: argparse.Namespace) -> dict[str, Any]:
    """One learner for every combination of the given settings."""
    keys = [setting.partition("=")[0] for setting in arguments.set]
    choices = [yaml.safe_load(f"[{setting.partition('=')[2]}]") for setting in arguments.set]
    results = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            data = prepared(arguments, seed, Path(folder))
            for values in itertools.product(*choices):
                settings = dict(zip(keys, values, strict=True))
                config = config_of(arguments.model, arguments, settings)
                results.append(train(data, config, seed, settings).summary())
    ranked = sorted(results, key=lambda r: -r["valid_auc"])
    print("best on validation:", {k: ranked[0][k] for k in ("settings", "valid_auc", "test_auc")})
    return {"results": results}


def prepared(arguments: argparse.Namespace, seed: int, folder: Path) -> PreparedData:
    dataset = dataset_for(arguments.data, arguments.dir)
    return prepare(dataset, folder / "data", seed=seed)


def config_of(
    name: str, arguments: argparse.Namespace, settings: dict[str, Any] | None = None
) -> LearnerConfig:
    """The defaults of a model, with settings laid over them."""
    data: dict[str, Any] = {"model": name, "num_threads": arguments.threads}
    if settings is None:
        data = apply_overrides(data, arguments.set)
    else:
        data = apply_overrides(data, [f"{k}={json.dumps(v)}" for k, v in settings.items()])
    return validate(LearnerConfig, data, "--set")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("mode", choices=("pool", "grid"))
    parser.add_argument("--data", required=True, help="preset or dataset.yaml")
    parser.add_argument("--dir", type=Path, help="folder with the preset's files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--learners", nargs="+", default=list(DEFAULT_POOL), choices=list(MODELS))
    parser.add_argument("--model", default="dnn", choices=list(MODELS), help="of grid")
    parser.add_argument("--set", action="append", default=[], help="key=value[,value...]")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of one learner")
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    started = time.monotonic()
    result = pool(arguments) if arguments.mode == "pool" else grid(arguments)
    result["arguments"] = {k: str(v) for k, v in vars(arguments).items()}
    write_result(arguments.out, {**result, "seconds": time.monotonic() - started})


if __name__ == "__main__":
    with one_sentence():
        main()
