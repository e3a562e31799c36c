"""Ablation of the student: one finished run's pool, many ways to distil it.

    python -m benchmarks.distillation RUN --seeds 1 2 3 --out FILE.json [--only NAME ...] [--jobs 2]

Every variant trains a student from the same pool and the same data; variants take turns within a
seed. `route` is the validation half that no training saw; choices belong there, never on `test`.
Students that FILE.json holds already are not trained again, so that more variants or seeds can be
added to it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import (
    grouped,
    markdown_table,
    mean_and_spread,
    one_sentence,
    with_held_out_rows,
)
from benchmarks.student_graphs import graph_figures, graphs_table
from benchmarks.student_variants import COMPRESSED, CONFIGURED, REPORTED, VARIANTS
from dynens.batch import OUT_OF_VOCABULARY, EncodedBatch, FloatArray
from dynens.config.base import apply_overrides, validate
from dynens.config.run import RunConfig
from dynens.data.prepared import PreparedData, open_prepared
from dynens.errors import BadInputError
from dynens.metrics import auc
from dynens.run import FIT_REPORT, RunDirectory, environment, read_json, write_json
from dynens.schema import DatasetConfig
from training.architecture import settle, student_config
from training.context import StageContext
from training.int8 import fp32_graph
from training.stages import labels_of, pool_logits, read_blend, weights_of
from training.student import StudentLearner, teacher_system
from training.valid_roles import valid_roles


def train_student(
    run: RunDirectory, settings: list[str], seed: int, tables: Mapping[str, Path] | None = None
) -> tuple[dict[str, float], FloatArray]:
    """One student: its AUC on the validation halves, on test and on further labelled tables, its
    training seconds; and its logits of the test rows."""
    given = run.read_config()
    if not any(setting.startswith("student_search.") for setting in settings):
        given["student"] = student_config(run, "student").model_dump(mode="json")
    dataset = validate(DatasetConfig, given.pop("data"), str(run.config))
    config = validate(RunConfig, apply_overrides(given, settings), "variant")
    roles_of = config
    config = config.model_copy(update={"seed": config.seed + 1000 * seed})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        context = StageContext(run, dataset, config, out, out / "checkpoints", lambda _: None)
        start = time.monotonic()
        student = config.student
        if config.student_search.trials:
            student = settle(context, roles_of)[0].config
        learner = StudentLearner(context, student, roles=roles_of).fit()
        seconds = time.monotonic() - start
        trained = read_json(out / FIT_REPORT)
        curves = [trained, *trained.get("compression", {}).values()]
    data = context.prepared()
    valid, test = data.split("valid"), data.split("test")
    z_valid, z_test = learner.predict_logits(valid), learner.predict_logits(test)
    roles = valid_roles(roles_of, valid)
    y, w = labels_of(valid), weights_of(valid)
    blend = read_blend(run, teacher_system(run, config.distill.teacher))
    teacher = blend.logit(pool_logits(run, tuple(blend.weights), "valid"))
    figures = {
        "teacher_correlation": float(np.corrcoef(z_valid[roles.route], teacher[roles.route])[0, 1]),
        "select": auc(y[roles.select], z_valid[roles.select], w[roles.select]),
        "route": auc(y[roles.route], z_valid[roles.route], w[roles.route]),
        "test": auc(labels_of(test), z_test, weights_of(test)),
        "seconds": seconds,
        "epochs": float(sum(fit["curve"][-1]["epoch"] for fit in curves)),
        **graph_figures(learner, fp32_graph(run.student), data, config.seed),
    }
    new = as_new_items(data, test)
    if new is not None:
        figures["new_items"] = auc(labels_of(test), learner.predict_logits(new), weights_of(test))
    for name, path in (tables or {}).items():
        batch = data.encode_file(str(path))
        figures[name] = auc(labels_of(batch), learner.predict_logits(batch), weights_of(batch))
    return figures, z_test


def as_new_items(data: PreparedData, batch: EncodedBatch) -> EncodedBatch | None:
    """The same rows with items that training never had; None where the item has no id."""
    schema = data.schema
    keys = schema.key_fields(schema.item_key)
    columns = [at for field, at in data.layout.columns() if field.name in keys]
    if not columns:
        return None
    ids = np.array(batch.ids)
    for at in columns:
        ids[:, at] = OUT_OF_VOCABULARY
    return replace(batch, ids=ids)


def averaged(run: RunDirectory, logits: list[FloatArray]) -> dict[str, float]:
    """Test AUC of students of different seeds together, their mean logit (a control).

    References:
        Allen-Zhu and Li, "Towards Understanding Ensemble, Knowledge Distillation and
        Self-Distillation in Deep Learning", 2020: distilled students have learned the same
        features, so that an ensemble of them should add little.
    """
    test = open_prepared(run.data).split("test")
    y, w = labels_of(test), weights_of(test)
    return {
        "students": len(logits),
        "alone": float(np.mean([auc(y, z, w) for z in logits])),
        "together": auc(y, np.mean(logits, axis=0), w),
    }


def summary(results: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation over seeds per variant as a Markdown table.

    The difference to the run's own settings, and the time over theirs, are taken between students
    of the same seed; see `configured_beside`.
    """
    columns = (
        *("variant", "correlation", "route AUC", "test AUC", "− as configured"),
        *("AUC, cold items", "time"),
    )
    rows = []
    references = configured_beside(results)
    for name, own in grouped(results, "variant").items():
        beside = [
            (r, reference)
            for r, reference in zip(results, references, strict=True)
            if r["variant"] == name and reference is not None
        ]
        differences = [r["test"] - reference["test"] for r, reference in beside]
        times = [r["seconds"] / reference["seconds"] for r, reference in beside]
        rows.append(
            (
                name,
                mean_and_spread([r["teacher_correlation"] for r in own]),
                mean_and_spread([r["route"] for r in own]),
                mean_and_spread([r["test"] for r in own]),
                "–" if name == CONFIGURED else mean_and_spread(differences, sign="+"),
                mean_and_spread([r["new_items"] for r in own if "new_items" in r]),
                "1" if name == CONFIGURED else mean_and_spread(times, digits=1),
            )
        )
    note = (
        "Correlation: of the student's logits with the teacher's, on `route` rows. Cold items: "
        "test AUC where no item's id is known (not measured at first). Time: over that of the "
        "student as configured. Made-up rows: augmented rows, labelled by the teacher."
    )
    return f"{markdown_table(columns, rows)}\n\n{note}"


def configured_beside(
    results: Sequence[Mapping[str, Any]],
) -> list[Mapping[str, Any] | None]:
    """Of every student, the one as configured that it is compared with: of its seed and commit, or
    else the latest of its seed that was trained before it."""
    of_commit = {(r["seed"], r.get("commit")): r for r in results if r["variant"] == CONFIGURED}
    latest: dict[int, Mapping[str, Any]] = {}
    found = []
    for r in results:
        if r["variant"] == CONFIGURED:
            latest[r["seed"]] = r
        found.append(of_commit.get((r["seed"], r.get("commit")), latest.get(r["seed"])))
    return found


def markdown(report: Mapping[str, Any]) -> str:
    """The summary, and what students of several seeds reach together."""
    text = summary(report["results"])
    graphs = graphs_table(report["results"], COMPRESSED)
    text += f"\n\n{graphs}" if graphs else ""
    together = report.get("averaged")
    if together:
        text += (
            f"\n\nThe mean logit of {together['students']} students as configured: test AUC "
            f"{together['together']:.4f}, alone {together['alone']:.4f} on average."
        )
    return text


def earlier_results(
    out: Path, source: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The students that a file holds, which must come from the same run and settings, and what
    `averaged` said of them (nothing, where it has not been asked)."""
    if not out.is_file():
        return [], {}
    report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    if any(report.get(name) != value for name, value in source.items()):
        raise BadInputError(
            f"{out} holds students of another run or other settings; name another file."
        )
    return report["results"], report.get("averaged", {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="finished run whose pool is distilled")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", choices=sorted(VARIANTS), help="other variants")
    parser.add_argument("--jobs", type=int, default=1, help="students that train side by side")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    run = with_held_out_rows(arguments.run)
    source = {"run": run.root.name, "settings": arguments.settings}
    with one_sentence():
        earlier, together = earlier_results(arguments.out, source)
    known = {(r["variant"], r["seed"]) for r in earlier}
    turns = [(name, seed) for seed in arguments.seeds for name in arguments.only or REPORTED]
    turns = [turn for turn in turns if turn not in known]
    made = {key: environment()[key] for key in ("commit", "date")}
    # Each student trains on one thread, in a process that knows nothing of the others.
    spawn = multiprocessing.get_context("spawn")
    found: dict[tuple[str, int], dict[str, Any]] = {}
    results, logits = earlier, []
    with ProcessPoolExecutor(arguments.jobs, mp_context=spawn) as pool:
        trained = {
            pool.submit(train_student, run, [*arguments.settings, *VARIANTS[name]], seed): (
                name,
                seed,
            )
            for name, seed in turns
        }
        for student in as_completed(trained):
            name, seed = trained[student]
            if student.exception() is not None:
                pool.shutdown(wait=False, cancel_futures=True)  # one that fails is told at once
            figures, z_test = student.result()
            found[name, seed] = {"variant": name, "seed": seed, **figures, **made}
            print(json.dumps(found[name, seed]), flush=True)
            if name == CONFIGURED:
                logits.append(z_test)
            if len(logits) > 1:
                together = averaged(run, logits)
            results = [*earlier, *(found[turn] for turn in turns if turn in found)]
            report = {**source, "environment": environment(), "results": results}
            write_json(arguments.out, {**report, "averaged": together})
    print(markdown({"results": results, "averaged": together}))


if __name__ == "__main__":
    main()
