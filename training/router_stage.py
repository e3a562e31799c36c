"""The router stage: fourth voice, calibration of both routes, difficulty, threshold, graphs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dynens.batch import EncodedBatch
from dynens.bundle import ENSEMBLE, RANKING, STUDENT, RouterSpec, write_bundle
from dynens.config.run import RunConfig
from dynens.ensemble.blend import Blend, fit_logistic
from dynens.ensemble.fuse import fuse_ensemble
from dynens.ensemble.int8 import Int8Trial
from dynens.ensemble.scorer import PoolScorer
from dynens.models.net_learner import NetLearner
from dynens.models.registry import load_learner
from dynens.routing.difficulty import DIFFICULTY, RouteRows
from dynens.routing.student_graph import StudentGraph, StudentTrunk, export_student
from dynens.routing.threshold import (
    ThresholdCurve,
    cautious_maximum,
    choose_fraction,
    fitted_fraction,
    fraction_for_cost,
    share_at_least,
    threshold_at,
    threshold_curve,
)
from dynens.run import ENSEMBLE_JSON, MODEL_ONNX, ROUTER_JSON, read_json, write_json
from training.context import StageContext
from training.int8 import quantize_student, trunk_outputs, write_trials
from training.ranking import export_ranking
from training.route_costs import route_costs
from training.stages import (
    calibrate_as,
    labels_of,
    pool_logits,
    read_blend,
    weights_of,
)
from training.valid_roles import valid_roles

STUDENT_ONNX = "student.onnx"
ENSEMBLE_ONNX = "ensemble.onnx"
NUM_FOLDS = 3
REQUEST_ROWS = 100
# Fractions whose AUC decides between difficulty scores: where routing is worth its cost.
CHOICE_FRACTIONS = np.array([0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
# A difficulty score displaces an earlier one in the configuration only by more than this.
MIN_ADVANTAGE_AUC = 5e-5
PARTIAL_POOLING_ROWS = 10.0

Vector = npt.NDArray[np.floating]
Folds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RouteLogits:
    """Raw logits of the `route` rows, by model name ("student" among them)."""

    logits: dict[str, npt.NDArray[np.float32]]
    labels: Vector
    weight: Vector

    def take(self, rows: npt.NDArray[np.bool_]) -> RouteLogits:
        return RouteLogits(
            {name: z[rows] for name, z in self.logits.items()},
            self.labels[rows],
            self.weight[rows],
        )


@dataclass(frozen=True)
class Routes:
    """The calibrated blends of both routes, and of the trio on its own."""

    easy: Blend
    hard: Blend
    static: Blend


def build_router(context: StageContext) -> None:
    """Fit both routes and the router on `route` rows; export the served graphs."""
    config, data = context.config, context.prepared()
    chosen = read_json(context.run.ensemble / ENSEMBLE_JSON)
    members = tuple(chosen["members"])
    valid = data.split("valid")
    route = valid_roles(config, valid).route
    student = load_learner(context.run.student)
    assert isinstance(student, NetLearner)
    trunk = StudentTrunk(student.networks_[0], data.layout, data.id_frequency).eval()
    rows = valid.take(route)
    (logit, hidden, rarity), int8 = trunk_outputs(context, trunk, rows)
    logits = {n: z[route] for n, z in pool_logits(context.run, members, "valid").items()}
    source = RouteLogits({**logits, "student": logit}, labels_of(rows), weights_of(rows))
    static = read_blend(context.run, "static_ensemble")
    fold = np.random.default_rng(config.seed).permutation(len(rows)) % NUM_FOLDS
    choice = _choose(source, static, hidden, rarity, fold, config)
    routes = fit_routes(source, static, config)
    final = route_rows(source, routes, hidden, rarity)
    difficulty = DIFFICULTY[choice.name](final, config.seed).eval()
    export_routes(context, StudentGraph(trunk, routes.easy, difficulty), routes, members, int8)
    fraction = _fraction(context, choice.curve, len(rows))
    inside = fraction
    if not config.router.is_told:
        inside = fitted_fraction(choice.shares, fraction, config.router.max_hard_fraction)
    baseline = _baseline_blend(context, valid, route)
    write_json(
        context.out / ROUTER_JSON,
        {
            "difficulty": choice.name,
            "hard_fraction": fraction,
            "fitted_fraction": inside,
            "threshold": encode_threshold(threshold_at(difficulty.score(final), inside)),
            "difficulty_scores": choice.scores,
            "curve": _curve_json(choice.curve),
            "blends": {
                "student": routes.easy.to_dict(),
                "static_ensemble": routes.static.to_dict(),
                "static_ensemble_with_student": routes.hard.to_dict(),
                "full_pool": read_blend(context.run, "full_pool").to_dict(),
                "best_single": read_blend(context.run, "best_single").to_dict(),
                "baseline": baseline.to_dict(),
            },
        },
    )


def export_routes(
    context: StageContext,
    student: StudentGraph,
    routes: Routes,
    members: tuple[str, ...],
    int8: Int8Trial | None,
) -> None:
    """Write the graphs of both routes, the student's in INT8 where that was worth it."""
    layout = context.prepared().layout
    export_student(student, layout, context.out / STUDENT_ONNX)
    if int8 is not None:
        write_trials(context, int8)
        if int8.kept:
            quantize_student(context, context.out / STUDENT_ONNX)
    fuse_ensemble(
        {m: context.run.learner(m) / MODEL_ONNX for m in members},
        {"probability": routes.hard, "trio_probability": routes.static},
        layout,
        context.out / ENSEMBLE_ONNX,
    )


def build_bundle(context: StageContext) -> None:
    """Put everything serving needs into the bundle."""
    data = context.prepared()
    router = read_json(context.run.router / ROUTER_JSON)
    chosen = read_json(context.run.ensemble / ENSEMBLE_JSON)
    graphs = {
        STUDENT: context.run.router / STUDENT_ONNX,
        ENSEMBLE: context.run.router / ENSEMBLE_ONNX,
    }
    with tempfile.TemporaryDirectory(dir=context.out.parent) as directory:
        ranking = Path(directory) / RANKING
        limit_mb = context.config.serving.item_tables_mb
        note = export_ranking(graphs, data.encoder, ranking, max_mb=limit_mb)
        write_bundle(
            context.out,
            dataset=data.name,
            layout=data.layout,
            router=RouterSpec(
                threshold=float(router["threshold"]),
                difficulty=router["difficulty"],
                hard_fraction=router["hard_fraction"],
            ),
            members=chosen["members"],
            student=graphs[STUDENT],
            ensemble=graphs[ENSEMBLE],
            encoder=data.encoder,
            ranking=ranking if ranking.is_dir() else None,
            default_budget_ms=context.config.serving.latency_budget_ms or 8.0,
            metrics={"ranking": note},
        )


def fit_routes(source: RouteLogits, static: Blend, config: RunConfig) -> Routes:
    """Calibrate both routes on one scale; the student joins the members as one more voice.

    The student's weight comes from a logistic regression on (trio logit, student logit) that is
    pulled towards the trio alone by as much as a handful of rows.
    """
    trio = static.logit(source.logits)
    inputs = np.stack([trio, source.logits["student"]], axis=1)
    weights, bias = fit_logistic(
        inputs,
        source.labels,
        sample_weight=source.weight,
        prior_mean=np.array([1.0, 0.0]),
        l2=PARTIAL_POOLING_ROWS / len(trio),
    )
    share = static.scaled(float(weights[0]), bias)
    hard = Blend({**share.weights, "student": float(weights[1])}, share.bias)
    student = Blend({"student": 1.0})
    easy = calibrate_as(config, student, source.logits, source.labels, source.weight)
    return Routes(
        easy=easy.blend,
        hard=hard,
        static=static,
    )


@dataclass(frozen=True)
class DifficultyChoice:
    """The chosen score, its out-of-fold curve and shares, and every score's mean AUC gap."""

    name: str
    curve: ThresholdCurve
    shares: Vector
    scores: dict[str, float]


def _choose(
    source: RouteLogits,
    static: Blend,
    hidden: Vector,
    rarity: Vector,
    fold: Folds,
    config: RunConfig,
) -> DifficultyChoice:
    """Compare difficulty scores out of fold: mean AUC over small hard fractions."""
    names: tuple[str, ...] = config.router.difficulties
    easy, hard, trio = (np.zeros(len(fold)) for _ in range(3))
    difficulty = {name: np.zeros(len(fold)) for name in names}
    shares = {name: np.zeros(len(fold)) for name in names}
    for k in range(NUM_FOLDS):
        inside, outside = fold != k, fold == k
        routes = fit_routes(source.take(inside), static, config)
        logits = source.take(outside).logits
        easy[outside] = routes.easy.logit(logits)
        hard[outside] = routes.hard.logit(logits)
        trio[outside] = static.logit(logits)
        fitted_on = route_rows(source.take(inside), routes, hidden[inside], rarity[inside])
        scored = route_rows(source.take(outside), routes, hidden[outside], rarity[outside])
        for name in names:
            head = DIFFICULTY[name](fitted_on, config.seed)
            score = head.score(scored)
            difficulty[name][outside] = _fold_ranks(score)
            shares[name][outside] = share_at_least(head.score(fitted_on), score)
    curves = {
        name: threshold_curve(
            source.labels, source.weight, easy, hard, trio, difficulty[name], seed=config.seed
        )
        for name in names
    }
    scores: dict[str, float] = {
        name: float(np.interp(CHOICE_FRACTIONS, c.fractions, c.gap).mean())
        for name, c in curves.items()
    }
    best = names[0]
    for name in names[1:]:
        if scores[name] > scores[best] + MIN_ADVANTAGE_AUC:
            best = name
    return DifficultyChoice(best, curves[best], shares[best], scores)


def _fold_ranks(score: Vector) -> Vector:
    """Ranks in [0, 1): heads fitted on different folds need not share a scale."""
    return np.asarray(np.argsort(np.argsort(score)) / max(len(score), 1))


def route_rows(source: RouteLogits, routes: Routes, hidden: Vector, rarity: Vector) -> RouteRows:
    """What the difficulty scores are fitted on and judged by.

    Args:
        source: logits of the members and the student, with labels and weights, of N rows.
        routes: what makes a calibrated logit of them, for either route.
        hidden: (N, H) the student's last hidden representation.
        rarity: (N, 2) mean and minimum over fields of log(1 + training frequency).
    """
    members = [name for name in source.logits if name != "student"]
    return RouteRows(
        labels=source.labels,
        weight=source.weight,
        student_logit=source.logits["student"],
        hidden=hidden,
        rarity=rarity,
        easy_logit=routes.easy.logit(source.logits),
        hard_logit=routes.hard.logit(source.logits),
        member_logits=np.stack([source.logits[m] for m in members], axis=1),
    )


def _fraction(context: StageContext, curve: ThresholdCurve, num_rows: int) -> float:
    router = context.config.router
    if router.hard_fraction is not None:
        return router.hard_fraction
    if router.mean_cost_us_per_row is not None:
        data = context.prepared()
        graphs = context.out / STUDENT_ONNX, context.out / ENSEMBLE_ONNX
        student, ensemble = route_costs(*graphs, data.split("valid"), data.layout)
        return fraction_for_cost(
            router.mean_cost_us_per_row,
            1e6 * student.seconds(REQUEST_ROWS, now_s=0.0) / REQUEST_ROWS,
            1e6 * ensemble.fixed_s,
            1e6 * ensemble.per_row_s,
            rows=REQUEST_ROWS,
            maximum=1.0,
        )
    maximum = cautious_maximum(router.max_hard_fraction, num_rows)
    return choose_fraction(curve, maximum=maximum, tolerance=router.tolerance_auc)


def _baseline_blend(
    context: StageContext, valid: EncodedBatch, route: npt.NDArray[np.bool_]
) -> Blend:
    config, rows = context.config, valid.take(route)
    scorer = PoolScorer({"baseline": context.run.baseline / MODEL_ONNX})
    blend, logits = Blend({"baseline": 1.0}), scorer.logits(rows)
    return calibrate_as(config, blend, logits, labels_of(rows), weights_of(rows)).blend


def _curve_json(curve: ThresholdCurve) -> dict[str, Any]:
    return {
        "fractions": curve.fractions.tolist(),
        "gap": curve.gap.tolist(),
        "gain": curve.gain.tolist(),
        "label_gap": curve.label_gap.tolist(),
        "expected_gap": curve.expected_gap.tolist(),
        "standard_error": curve.standard_error.tolist(),
    }


def encode_threshold(threshold: float) -> float | str:
    """JSON has no infinity: "inf" sends no row to the ensemble, "-inf" every row.

    `float` reads either form.
    """
    return threshold if np.isfinite(threshold) else str(threshold)
