"""Which answers of the teacher for training rows teach best: in sample, or out of fold.

    python -m benchmarks.out_of_fold RUN --folds 2 4 --seeds 1 2 3 --out FILE.json [--jobs 2]

A pool has seen the labels of its training rows, so its answers for them are too sure. Here the
learners of a finished run are trained once per fold on all rows but the fold's, and answer for it;
students then hear these answers for logged rows instead of the pool's own. Made-up rows, which no
learner has seen, are labelled by the pool in either case. Students of one seed differ in nothing
else. `route` is the validation half that no training saw; choices belong there, never on `test`.
The run is not changed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.common import (
    grouped,
    markdown_table,
    mean_and_spread,
    one_sentence,
    with_held_out_rows,
    write_result,
)
from benchmarks.distillation import train_student
from benchmarks.student_variants import CONFIGURED, VARIANTS
from dynens.batch import FloatArray
from dynens.data.prepared import open_prepared
from dynens.metrics import auc
from dynens.models.base import FitOptions
from dynens.models.registry import build_learner
from dynens.report.write import run_config
from dynens.run import RunDirectory
from training.stages import (
    labels_of,
    learner_seed,
    pool_logits,
    read_blend,
    weights_of,
)
from training.student import teacher_system
from training.valid_roles import valid_roles

Rows = npt.NDArray[np.intp]
# How a student is made from the answers: with labels beside them, and with nothing else.
STUDENTS = (CONFIGURED, "alpha 1")
LOGITS = "logits_train.npy"


def fold_rows(num_rows: int, folds: int, seed: int) -> list[Rows]:
    """The rows of each fold, drawn at random."""
    fold = np.random.default_rng([seed, folds]).integers(0, folds, num_rows)
    return [np.flatnonzero(fold == number) for number in range(folds)]


def fold_answers(root: Path, name: str, rows: Rows) -> tuple[FloatArray, float]:
    """What a learner that has seen all training rows but these answers for them, and the seconds
    that this took."""
    run = RunDirectory(root)
    data = open_prepared(run.data)
    config = data.without_unsuited(run_config(run))
    train, valid = data.split("train"), data.split("valid")
    seen = np.setdiff1d(np.arange(len(train)), rows)
    own = config.learners[name].model_copy(update={"name": name})
    learner = build_learner(own, data.layout, data.stats, learner_seed(config, name))
    start = time.monotonic()
    stop_at = valid.take(valid_roles(config, valid).select)
    learner.fit(train.take(seen), stop_at, FitOptions(unlabelled=data.unlabelled))
    return learner.predict_logits(train.take(rows)), time.monotonic() - start


def with_answers(run: RunDirectory, answers: Mapping[str, FloatArray], folder: Path) -> Path:
    """A run in `folder` whose learners answer so for training rows, and that is `run` otherwise."""
    folder.mkdir()
    for entry in run.root.iterdir():
        if entry.name != "learners":
            (folder / entry.name).symlink_to(entry)
    for name, logits in answers.items():
        own = folder / "learners" / name
        own.mkdir(parents=True)
        for entry in run.learner(name).iterdir():
            if entry.name != LOGITS:
                (own / entry.name).symlink_to(entry)
        np.save(own / LOGITS, logits)
    return folder


def teachers_auc(root: Path) -> float:
    """AUC of the teacher's answers for the training rows."""
    run = RunDirectory(root)
    blend = read_blend(run, teacher_system(run, run_config(run).distill.teacher))
    train = open_prepared(run.data).split("train")
    logits = blend.logit(pool_logits(run, tuple(blend.weights), "train"))
    return auc(labels_of(train), logits, weights_of(train))


def student_of(root: Path, variant: str, seed: int) -> dict[str, float]:
    """Figures of one student that a run's answers teach."""
    return train_student(RunDirectory(root), VARIANTS[variant], seed)[0]


def answering_runs(
    run: RunDirectory,
    folds: list[int],
    folder: Path,
    submit: Callable[..., Future[tuple[FloatArray, float]]],
) -> tuple[dict[int, Path], dict[str, dict[str, float]]]:
    """Runs by how many folds answer for their training rows (0: in sample), and what that took."""
    data = open_prepared(run.data)
    config = data.without_unsuited(run_config(run))
    names, num_rows = tuple(config.learners), len(data.split("train"))
    parts = {k: fold_rows(num_rows, k, config.seed) for k in folds}
    asked = {
        (k, name, number): submit(fold_answers, run.root, name, rows)
        for k in folds
        for name in names
        for number, rows in enumerate(parts[k])
    }
    roots = {0: run.root}
    teachers = {"0": {"auc": teachers_auc(run.root), "seconds": 0.0}}
    for k in folds:
        answers, seconds = dict(pool_logits(run, names, "train")), 0.0
        for name in names:
            answers[name] = np.array(answers[name])
            for number, rows in enumerate(parts[k]):
                answers[name][rows], took = asked[k, name, number].result()
                seconds += took
        roots[k] = with_answers(run, answers, folder / f"{run.root.name}-{k}")
        teachers[str(k)] = {"auc": teachers_auc(roots[k]), "seconds": seconds}
    return roots, teachers


def markdown(report: Mapping[str, Any]) -> str:
    """Mean ± standard deviation over seeds; differences are those of students of one seed."""
    results = report["results"]
    in_sample = {(r["variant"], r["seed"]): r["test"] for r in results if r["folds"] == 0}
    columns = (
        *("student", "answers", "their AUC", "correlation", "route AUC", "test AUC"),
        *("− in sample", "seconds of the pool"),
    )
    rows = []
    for (variant, folds), own in grouped(results, "variant", "folds").items():
        differences = [r["test"] - in_sample[variant, r["seed"]] for r in own]
        teacher = report["teachers"][str(folds)]
        rows.append(
            (
                variant,
                f"of {folds} folds" if folds else "in sample",
                f"{teacher['auc']:.4f}",
                *(mean_and_spread([r[x] for r in own]) for x in ("teacher_correlation", "route")),
                mean_and_spread([r["test"] for r in own]),
                mean_and_spread(differences, sign="+") if folds else "–",
                f"{teacher['seconds']:.0f}",
            )
        )
    note = (
        "Answers: the teacher's soft labels for logged rows, and their AUC there. Correlation: of "
        "the student's logits with the pool's, on `route` rows. Seconds: of training on one "
        "thread, beyond that of the pool itself."
    )
    return f"{markdown_table(columns, rows)}\n\n{note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="finished run whose learners are trained per fold")
    parser.add_argument("--folds", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    if min(arguments.folds) < 2:
        parser.error(f"--folds {min(arguments.folds)}: one fold leaves no rows to train on.")
    run = RunDirectory(with_held_out_rows(arguments.run).root.resolve())
    spawn = multiprocessing.get_context("spawn")  # each process trains on one thread
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(arguments.jobs, mp_context=spawn) as pool,
    ):
        roots, teachers = answering_runs(run, arguments.folds, Path(folder), pool.submit)
        turns = [(v, f, seed) for seed in arguments.seeds for v in STUDENTS for f in roots]
        trained = [pool.submit(student_of, roots[f], v, seed) for v, f, seed in turns]
        results = []
        for (variant, folds, seed), student in zip(turns, trained, strict=True):
            results.append({"variant": variant, "folds": folds, "seed": seed, **student.result()})
            report = {"run": run.root.name, "teachers": teachers, "results": results}
            write_result(arguments.out, report)
    print(markdown(report))


if __name__ == "__main__":
    with one_sentence():
        main()
