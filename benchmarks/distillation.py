"""Ablation of the student: one finished run's pool, many ways to distil it.

    python -m benchmarks.distillation RUN --seeds 1 2 3 --out FILE.json [--only NAME ...]

Every variant trains a student from the same pool and the same data; variants take turns within a
seed. `route` is the validation half that no training saw; choices belong there, never on `test`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dynens.config.base import apply_overrides, validate
from dynens.config.run import RunConfig
from dynens.metrics import auc
from dynens.run import RunDirectory, environment, write_json
from dynens.schema import DatasetConfig
from training.architecture import student_config
from training.context import StageContext
from training.stages import StudentLearner, labels_of, valid_roles, weights_of

SWAP = "distill.augmentations=[{kind: field_swap}]"
NONE = "distill.augmented_per_row=0"

VARIANTS: dict[str, list[str]] = {
    "labels only": ["distill.alpha.start=0", NONE],
    "response, alpha 0.5": ["distill.alpha.start=0.5", NONE],
    "response, alpha 0.9": ["distill.alpha.start=0.9", NONE],
    "response, alpha 1": ["distill.alpha.start=1", NONE],
    "field swap": [SWAP],
    "field swap, teacher trio": [SWAP, "distill.teacher=ensemble"],
    "field swap p 0.25": ["distill.augmentations=[{kind: field_swap, probability: 0.25}]"],
    "field swap x3": [SWAP, "distill.augmented_per_row=3"],
    "entity swap": ["distill.augmentations=[{kind: entity_swap}]"],
    "entity swap x3": [
        "distill.augmentations=[{kind: entity_swap}]",
        "distill.augmented_per_row=3",
    ],
    "cutmix": ["distill.augmentations=[{kind: cutmix}]"],
    "field mask": ["distill.augmentations=[{kind: field_mask, probability: 0.2}]"],
    "swap and entity swap": ["distill.augmentations=[{kind: field_swap}, {kind: entity_swap}]"],
    "temperature 2": [SWAP, "distill.temperature.start=2"],
    "temperature 5 to 1": [
        SWAP,
        "distill.temperature={kind: linear, start: 5, end: 1}",
    ],
    "temperature 20 halving": [
        SWAP,
        "distill.temperature={kind: halving, start: 20, end: 1, every_epochs: 10}",
    ],
    "alpha 0.5 to 1": [SWAP, "distill.alpha={kind: linear, start: 0.5, end: 1}"],
    "hard labels first": [SWAP, "distill.alpha={kind: step, start: 0, end: 1, every_epochs: 3}"],
    "hints": [SWAP, "distill.hints.weight=0.1"],
    "hints, strong": [SWAP, "distill.hints.weight=1"],
    "hints without made-up rows": [NONE, "distill.hints.weight=0.1"],
    "gating": [SWAP, "distill.gating=true"],
    "gating without made-up rows": [NONE, "distill.gating=true"],
    "mixup": [SWAP, "distill.mixup.weight=0.5"],
    "mixup in place of made-up rows": [NONE, "distill.mixup={weight: 1, beta: 1}"],
    "guard": [SWAP, "distill.guard=0.5"],
    "guard without made-up rows": [NONE, "distill.guard=0.5"],
    "hints, gating, mixup and guard": [
        SWAP,
        "distill.hints.weight=0.1",
        "distill.gating=true",
        "distill.mixup.weight=0.5",
        "distill.guard=0.5",
    ],
    "ipnn student": [SWAP, "student.model=ipnn"],
    "deepfm student": [SWAP, "student.model=deepfm"],
    "dcnv2 student": [SWAP, "student.model=dcnv2", "student.cross_layers=1"],
    "embedding 32": [SWAP, "student.embedding_dim=32"],
    "embedding 8": [SWAP, "student.embedding_dim=8"],
    "hidden 256-128": [SWAP, "student.hidden_units=[256, 128]"],
    "no embedding l2": [SWAP, "student.optimizer.embedding_l2=0"],
}


def train_student(run: RunDirectory, settings: list[str], seed: int) -> dict[str, float]:
    """One student; its AUC on the validation halves and on test, and its training seconds."""
    given = run.read_config()
    given["student"] = student_config(run, "student").model_dump(mode="json")
    dataset = validate(DatasetConfig, given.pop("data"), str(run.config))
    config = validate(RunConfig, apply_overrides(given, settings), "variant")
    roles_of = config
    config = config.model_copy(update={"seed": config.seed + 1000 * seed})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        context = StageContext(run, dataset, config, out, out / "checkpoints", lambda _: None)
        start = time.monotonic()
        learner = StudentLearner(context, config.student, roles=roles_of).fit()
        seconds = time.monotonic() - start
        curve = json.loads((out / "fit.json").read_text(encoding="utf-8"))["curve"]
    data = context.prepared()
    valid, test = data.split("valid"), data.split("test")
    z_valid, z_test = learner.predict_logits(valid), learner.predict_logits(test)
    roles = valid_roles(roles_of, len(valid))
    y, w = labels_of(valid), weights_of(valid)
    return {
        "select": auc(y[roles.select], z_valid[roles.select], w[roles.select]),
        "route": auc(y[roles.route], z_valid[roles.route], w[roles.route]),
        "test": auc(labels_of(test), z_test, weights_of(test)),
        "seconds": seconds,
        "epochs": float(curve[-1]["epoch"]),
    }


def summary(results: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation per variant as a Markdown table."""
    lines = ["| variant | route AUC | test AUC | seconds |", "| --- | --- | --- | --- |"]
    for name in dict.fromkeys(r["variant"] for r in results):
        rows = [r for r in results if r["variant"] == name]

        def stat(key: str, rows: list[dict[str, Any]] = rows) -> str:
            values = [r[key] for r in rows]
            return f"{np.mean(values):.4f} ± {np.std(values, ddof=len(values) > 1):.4f}"

        seconds = np.mean([r["seconds"] for r in rows])
        lines.append(f"| {name} | {stat('route')} | {stat('test')} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="finished run whose pool is distilled")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", choices=sorted(VARIANTS), help="a few variants")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    run = RunDirectory.open(arguments.run)
    results: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for name in arguments.only or VARIANTS:
            settings = [*arguments.settings, *VARIANTS[name]]
            result = {"variant": name, "seed": seed, **train_student(run, settings, seed)}
            results.append(result)
            print(json.dumps(result), flush=True)
            write_json(arguments.out, {"environment": environment(), "results": results})
    print(summary(results))


if __name__ == "__main__":
    main()
