"""Training step time against FuxiCTR: same data, model, batch, optimiser and threads, interleaved.

    python -m benchmarks.training_speed --out benchmarks/out/training_speed.json    (about 6 min)

FuxiCTR gets a virtual environment of its own under `--cache`, made when absent, and is left out by
`--without-peer`. Where torch finds a GPU, dynens trains there too, beside its CPU threads. Per
round each side takes some steps in turn; medians over all steps but the warm-up are compared. The
same steps go on to a fixed validation AUC, and the training time it took is printed beside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import markdown_table, one_sentence, spread, write_result
from benchmarks.environments import CACHE, peer_python
from dynens import metrics
from dynens.batch import EncodedBatch, FeatureLayout, SparseField
from dynens.config.learner import Device, LearnerConfig, OptimizerConfig, Precision
from dynens.models.batches import tensor_batch
from dynens.models.net_learner import NetLearner
from dynens.models.network import CTRNetwork
from dynens.models.registry import MODELS
from dynens.models.training import Trainer, predict_logits

FUXICTR, TORCH = "fuxictr==2.3.10", "2.13.0"
PEER = Path(__file__).with_name("fuxictr_peer.py")
VALID_ROWS = 20_480
FIRST_SIDE, PEER_SIDE = "dynens fp32", "fuxictr fp32"


def planted_rows(num_rows: int, num_fields: int, vocabulary: int) -> tuple[Any, Any]:
    """Zipf-distributed ids and labels from an additive effect of every id."""
    rng = np.random.default_rng(0)
    ids = 2 + np.minimum(rng.zipf(1.2, (num_rows, num_fields)) - 1, vocabulary - 3)
    effects = rng.normal(size=(num_fields, vocabulary)) * 2 / np.sqrt(num_fields)
    logit = effects[np.arange(num_fields), ids].sum(axis=1)
    labels = rng.random(num_rows) < 1 / (1 + np.exp(-logit))
    return ids.astype(np.int32), labels.astype(np.float32)


class Ours:
    """dynens's network and trainer, driven step by step."""

    def __init__(
        self, options: dict[str, Any], precision: Precision, device: Device, ids: Any, labels: Any
    ) -> None:
        torch.manual_seed(0)
        config = LearnerConfig(
            model=options["model"],
            embedding_dim=options["embedding_dim"],
            hidden_units=tuple(options["hidden_units"]),
            cross_layers=options["cross_layers"],
            dropout=0.0,
            rank=0,
            use_stats=False,
            optimizer=OptimizerConfig(
                batch_size=options["batch_size"],
                learning_rate=options["learning_rate"],
                embedding_l2=options["embedding_l2"],
                ema_decay=0.0,
                precision=precision,
            ),
        )
        fields = [SparseField(f"f{i}", options["vocabulary"]) for i in range(ids.shape[1])]
        layout = FeatureLayout((), tuple(fields))
        learner = MODELS[config.model]
        assert issubclass(learner, NetLearner)
        self.network = CTRNetwork(layout, config, learner.head_class, None).to(device)
        self.trainer = Trainer(self.network, config, seed=0)
        self.rows = EncodedBatch(np.zeros((len(ids), 0), np.float32), ids, labels)
        self.batch_size = options["batch_size"]
        self.network.train()

    def steps(self, first: int, count: int) -> list[float]:
        seconds = []
        for step in range(first, first + count):
            index = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
            batch = tensor_batch(self.rows, index)
            started = time.perf_counter()
            self.trainer.train_step(batch.to(self.trainer.device))
            seconds.append(time.perf_counter() - started)
        return seconds

    def predict(self, first_row: int) -> Any:
        return predict_logits(self.network, self.rows.take(slice(first_row, None)))


class Peer:
    """FuxiCTR in a process of its own environment."""

    def __init__(self, python: Path, options: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [str(python), str(PEER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._ask({"do": "start", "options": options})

    def steps(self, first: int, count: int) -> list[float]:
        seconds: list[float] = self._ask({"do": "steps", "first": first, "count": count})
        return seconds

    def predict(self, first_row: int) -> Any:
        return self._ask({"do": "predict", "first_row": first_row})

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)

    def _ask(self, command: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("The peer ended without an answer; does its Python have fuxictr?")
        return json.loads(line)


def compare(arguments: argparse.Namespace, model: str, folder: Path) -> dict[str, Any]:
    """Interleaved steps of every side for one model."""
    options = {
        "model": model,
        "num_fields": arguments.fields,
        "vocabulary": arguments.vocabulary,
        "embedding_dim": 16,
        "hidden_units": [400, 400, 400],
        "cross_layers": 3,
        "batch_size": arguments.batch_size,
        "learning_rate": 1e-3,
        "embedding_l2": 1e-5,
        "threads": arguments.threads,
    }
    num_steps = arguments.rounds * arguments.steps
    num_train = num_steps * arguments.batch_size
    ids, labels = planted_rows(num_train + VALID_ROWS, arguments.fields, arguments.vocabulary)
    np.save(folder / "ids.npy", ids)
    np.save(folder / "labels.npy", labels)
    sides: dict[str, Ours | Peer] = {
        FIRST_SIDE: Ours(options, "fp32", "cpu", ids, labels),
        "dynens bf16": Ours(options, "bf16", "cpu", ids, labels),
    }
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
        sides[f"dynens fp32, {gpu}"] = Ours(options, "fp32", "cuda", ids, labels)
        sides[f"dynens bf16, {gpu}"] = Ours(options, "bf16", "cuda", ids, labels)
    if not arguments.without_peer:
        python = peer_python(arguments.cache, FUXICTR, (f"torch=={TORCH}",), locked=False)
        files = {name: str(folder / f"{name}.npy") for name in ("ids", "labels")}
        sides[PEER_SIDE] = Peer(python, options | files)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    curves: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for round_number in range(arguments.rounds):
        for name, side in sides.items():
            seconds[name] += side.steps(round_number * arguments.steps, arguments.steps)
            auc = metrics.auc(labels[num_train:], side.predict(num_train))
            curves[name].append((sum(seconds[name]), auc))
    for side in sides.values():
        if isinstance(side, Peer):
            side.close()
    return {"options": options, "samples": {"seconds": seconds, "curves": curves}}


def summarise(result: dict[str, Any], warm_up: int) -> dict[str, Any]:
    """Median step and time to the AUC that every side reached."""
    curves = result["samples"]["curves"]
    target = min(max(auc for _, auc in curve) for curve in curves.values())
    summary = {}
    for name, seconds in result["samples"]["seconds"].items():
        steps_ms = 1e3 * np.array(seconds[warm_up:])
        reached = next(t for t, auc in curves[name] if auc >= target)
        summary[name] = {
            "step_ms": float(np.median(steps_ms)),
            "step_ms_p10": float(np.percentile(steps_ms, 10)),
            "step_ms_p90": float(np.percentile(steps_ms, 90)),
            "seconds_to_auc": float(reached),
        }
    return {"target_auc": target, "sides": summary}


def markdown(result: Mapping[str, Any]) -> str:
    """Median steps and times to the AUC that every side reached."""
    rows = []
    for model, compared in result["models"].items():
        summary, options = compared["summary"], compared["options"]
        against = summary["sides"].get(PEER_SIDE, summary["sides"][FIRST_SIDE])["step_ms"]
        for name, side in summary["sides"].items():
            step = spread([side["step_ms"], side["step_ms_p10"], side["step_ms_p90"]], digits=1)
            ratio = f"{against / side['step_ms']:.2f}"
            rows.append([model, name, step, ratio, f"{side['seconds_to_auc']:.1f}"])
    has_peer = PEER_SIDE in summary["sides"]
    compared_with = "FuxiCTR's" if has_peer else f"{FIRST_SIDE}'s"
    columns = ["model", "side", "step, ms", f"{compared_with} step ÷ this", "s to equal AUC"]
    note = f"{FUXICTR}; " if has_peer else ""
    note += (
        f"{options['num_fields']} fields of {options['vocabulary']:,} ids, batch "
        f"{options['batch_size']}, embedding {options['embedding_dim']}, {options['threads']} "
        "thread(s). Median (10th–90th percentile of steps), interleaved."
    )
    return f"{markdown_table(columns, rows)}\n\n{note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--cache", type=Path, default=CACHE, help="environments")
    parser.add_argument("--models", nargs="+", default=["dnn", "dcnv2"])
    parser.add_argument("--fields", type=int, default=40)
    parser.add_argument("--vocabulary", type=int, default=10_000, help="ids per field")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="steps per side and round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--without-peer", action="store_true", help="time dynens alone")
    parser.add_argument("--out", type=Path, required=True, help="JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = {}
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            result = compare(arguments, model, Path(folder))
        result["summary"] = summarise(result, warm_up=arguments.steps)
        results[model] = result
        print(model, json.dumps(result["summary"], indent=1))
    write_result(arguments.out, {"models": results, "threads": arguments.threads})
    print(markdown({"models": results}))


if __name__ == "__main__":
    with one_sentence():
        main()
