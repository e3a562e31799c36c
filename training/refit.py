"""The stages of a second pass that differ from those of a first; see `training.passes`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace

from dynens.data.prepared import open_prepared
from dynens.ensemble.blend import Blend, Logits
from dynens.ensemble.calibration import matched
from dynens.ensemble.scorer import PoolScorer
from dynens.models.net_learner import NetLearner
from dynens.models.registry import load_learner
from dynens.routing.difficulty import DIFFICULTY
from dynens.routing.student_graph import StudentGraph, StudentTrunk
from dynens.routing.threshold import threshold_at
from dynens.run import (
    ENSEMBLE_JSON,
    FIT_REPORT,
    MODEL_ONNX,
    ROUTER_JSON,
    read_json,
    write_json,
)
from training.architecture import ARCHITECTURE_JSON, student_config
from training.context import StageContext
from training.inheritance import with_inheritance
from training.int8 import trunk_outputs
from training.router_stage import (
    RouteLogits,
    Routes,
    encode_threshold,
    export_routes,
    route_rows,
)
from training.stages import course, labels_of, pool_logits, weights_of
from training.student import StudentLearner
from training.valid_roles import valid_roles


def settled_architecture(context: StageContext) -> None:
    """The student's architecture is the first pass's."""
    assert context.first is not None
    shutil.copy(context.first.architecture / ARCHITECTURE_JSON, context.out)


def refit_ensemble(context: StageContext) -> None:
    """Members and weights are the first pass's."""
    assert context.first is not None
    settled = read_json(context.first.ensemble / ENSEMBLE_JSON)
    logits = _known_logits(context)
    blends = {name: _matched(context, b, logits).to_dict() for name, b in settled["blends"].items()}
    write_json(context.out / ENSEMBLE_JSON, {**settled, "blends": blends})


def _known_logits(context: StageContext) -> dict[str, Logits]:
    """What the pool says of validation rows, which it was trained on."""
    rows = context.prepared().valid_rows
    logits = pool_logits(context.run, tuple(context.config.learners), "train")
    return {name: z[rows] for name, z in logits.items()}


def _matched(
    context: StageContext, blend: Mapping[str, object], logits: Mapping[str, Logits]
) -> Blend:
    """A blend of the first pass, whose calibration made up for what had changed since training,
    without that part of it which models that were trained on these rows know by themselves."""
    rows = context.prepared().split("valid")
    return matched(Blend.from_dict(blend), logits, labels_of(rows), weights_of(rows))


def refit_student(context: StageContext) -> None:
    """Distil the pool that knows all rows as the first pass distilled its own."""
    first = context.first
    assert first is not None
    config, follow = course(context, lambda r: r.student, student_config(first, "student"))
    assert follow is not None
    told = read_json(first.student / FIT_REPORT)
    width = with_inheritance(context.config, context.prepared().layout).product_width
    config = config.model_copy(update={"product_width": width})
    student = StudentLearner(context, config, follow=follow)
    if told["faithful"]:
        student = student.without_labels(config)
    learner, report = student.train()
    write_json(context.out / FIT_REPORT, {**told, **report.to_dict()})
    learner.save(context.out)
    learner.export_onnx(context.out / MODEL_ONNX)


def refit_router(context: StageContext) -> None:
    """Export the routes as the first pass settled them, with a difficulty head of this student.

    The head tells from this student's hidden layer what the first pass had to say of the same rows,
    which trained neither route there; its threshold takes as large a share of them.
    """
    first, config, data = context.first, context.config, context.prepared()
    assert first is not None
    settled = read_json(first.router / ROUTER_JSON)
    members = tuple(read_json(first.ensemble / ENSEMBLE_JSON)["members"])
    valid = data.split("valid")
    route = valid_roles(config, valid).route
    student, before = load_learner(context.run.student), load_learner(first.student)
    assert isinstance(student, NetLearner)
    trunk = StudentTrunk(student.networks_[0], data.layout, data.id_frequency).eval()
    (logit, hidden, rarity), int8 = trunk_outputs(context, trunk, valid)
    logits = {n: z[route] for n, z in pool_logits(first, members, "valid").items()}
    logits["student"] = before.predict_logits(open_prepared(first.data).split("valid").take(route))
    source = RouteLogits(logits, labels_of(valid)[route], weights_of(valid)[route])
    before_routes = _routes({n: Blend.from_dict(b) for n, b in settled["blends"].items()})
    said = route_rows(source, before_routes, hidden[route], rarity[route])
    said = replace(said, student_logit=logit[route])
    difficulty = DIFFICULTY[settled["difficulty"]](said, config.seed).eval()
    threshold = threshold_at(difficulty.score(said), settled["fitted_fraction"])
    known = {**_known_logits(context), "student": logit}
    known |= PoolScorer({"baseline": context.run.baseline / MODEL_ONNX}).logits(valid)
    blends = {name: _matched(context, b, known) for name, b in settled["blends"].items()}
    routes = _routes(blends)
    export_routes(context, StudentGraph(trunk, routes.easy, difficulty), routes, members, int8)
    changed = {
        "threshold": encode_threshold(threshold),
        "blends": {name: blend.to_dict() for name, blend in blends.items()},
    }
    write_json(context.out / ROUTER_JSON, {**settled, **changed})


def _routes(blends: Mapping[str, Blend]) -> Routes:
    return Routes(
        easy=blends["student"],
        hard=blends["static_ensemble_with_student"],
        static=blends["static_ensemble"],
    )
