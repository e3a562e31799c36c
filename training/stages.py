"""The stages of a run as plain functions: each reads finished stages and fills one directory.

No Ray here: `training/pipeline.py` decides where and when a stage runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dynens.batch import EncodedBatch
from dynens.config.base import validate
from dynens.config.learner import LearnerConfig
from dynens.config.run import RunConfig
from dynens.ensemble.blend import Blend, Logits
from dynens.ensemble.calibration import CalibrationChoice, calibrate
from dynens.ensemble.scorer import PoolScorer
from dynens.ensemble.selection import choose_members
from dynens.ensemble.weights import choose_weights
from dynens.metrics import auc
from dynens.models.base import BaseLearner, FitOptions, FitReport
from dynens.models.registry import build_learner, load_learner
from dynens.models.selection import select_features
from dynens.models.settings import LEARNER_FILE
from dynens.run import (
    ENSEMBLE_JSON,
    FIT_REPORT,
    MODEL_ONNX,
    RunDirectory,
    intact,
    read_json,
    write_json,
)
from training.architecture import student_config
from training.context import StageContext
from training.int8 import serve_int8, settled_trial
from training.valid_roles import valid_roles

MEMBER_FLOOR = 0.05
_NAME_CODES = 997


def learner_seed(config: RunConfig, name: str) -> int:
    """A seed of its own for every learner, stable when others are added after it."""
    codes: dict[str, int] = {}
    for other in dict.fromkeys([*config.learners, name]):
        code = sum(other.encode()) % _NAME_CODES
        while code in codes.values():  # the same letters in another order
            code = (code + 1) % _NAME_CODES
        codes[other] = code
    return config.seed * 1000 + codes[name]


def train_learner(context: StageContext, name: str) -> None:
    """Fit one base learner; save it, its graph and its logits on every split."""
    config = context.config.learners[name].model_copy(update={"name": name})
    data, seed = context.prepared(), learner_seed(context.config, name)
    has_tables = bool(select_features(data.layout, config.fields).fields)
    is_spread = context.config.ray.net_workers > 1 and config.is_neural and has_tables
    learner = _train(context, lambda run: run.learner(name), config, seed, is_spread=is_spread)
    logits = learner.training_logits(data.split("train"), data.unlabelled)
    np.save(context.out / "logits_train.npy", logits)
    scorer = PoolScorer({name: context.out / MODEL_ONNX})
    np.save(context.out / "logits_test.npy", scorer.logits(data.split("test"))[name])
    if context.first is None:
        np.save(context.out / "logits_valid.npy", scorer.logits(data.split("valid"))[name])
    else:  # those of rows that trained nothing
        shutil.copy(context.first.learner(name) / "logits_valid.npy", context.out)


def train_baseline(context: StageContext) -> None:
    """The student's architecture and training, on click labels alone and without the pool."""
    config = student_config(context.run, "baseline").model_copy(update={"product_width": 0})
    _train(context, lambda run: run.baseline, config, context.config.seed)


def _train(
    context: StageContext,
    place: Callable[[RunDirectory], Path],
    config: LearnerConfig,
    seed: int,
    *,
    is_spread: bool = False,
) -> BaseLearner:
    """Fit a learner on labels; save it, its graph and how its training went.

    Args:
        context: the stage's.
        place: the learner's folder in a run.
        config: as configured.
        seed: of its training.
        is_spread: whether several workers train it.
    """
    data = context.prepared()
    config, follow = course(context, place, config)
    int8 = settled_trial(context, place)
    valid = data.split("valid")
    roles = valid_roles(context.config, valid)
    if is_spread:
        learner, report = _fit_on_workers(context, config, roles.select, seed, follow)
    else:
        learner = build_learner(config, data.layout, data.stats, seed)
        report = learner.fit(
            data.split("train"),
            valid.take(roles.select),
            FitOptions(
                unlabelled=data.unlabelled,
                checkpoint_dir=context.checkpoints,
                progress=context.progress,
                follow=follow,
                ends_at=context.ends_at,
            ),
        )
        learner.save(context.out)
    learner.export_onnx(context.out / MODEL_ONNX)
    serve_int8(context, context.out / MODEL_ONNX, valid.take(roles.route), int8)
    write_json(context.out / FIT_REPORT, report.to_dict())
    return learner


def _fit_on_workers(
    context: StageContext,
    config: LearnerConfig,
    select: npt.NDArray[np.bool_],
    seed: int,
    follow: FitReport | None,
) -> tuple[BaseLearner, FitReport]:
    """A neural learner, trained by several Ray workers and saved."""
    from training.distributed import DistributedConfig, fit_distributed

    report = fit_distributed(
        config,
        context.run.data,
        context.out,
        seed=seed,
        spread=DistributedConfig(num_workers=context.config.ray.net_workers),
        storage=context.checkpoints,
        valid_rows=select,
        how=FitOptions(progress=context.progress, follow=follow),
    )
    return load_learner(context.out), report


def course(
    context: StageContext, place: Callable[[RunDirectory], Path], config: LearnerConfig
) -> tuple[LearnerConfig, FitReport | None]:
    """What a model is trained with, and what its training follows.

    Args:
        context: the stage's.
        place: its folder in a run.
        config: as configured.

    Returns:
        In a second pass the settings that the first one came to, and how its training went.
    """
    if context.first is None:
        return config, None
    folder = place(context.first)
    settled = validate(LearnerConfig, read_json(folder / LEARNER_FILE)["config"], str(folder))
    settled = settled.model_copy(update={"device": config.device})
    return settled, FitReport.from_dict(read_json(folder / FIT_REPORT))


def pool_logits(run: RunDirectory, names: tuple[str, ...], split: str) -> dict[str, Logits]:
    """Saved logits of the pool on one split."""
    return {name: _saved_logits(run.learner(name) / f"logits_{split}.npy") for name in names}


def _saved_logits(path: Path) -> Logits:
    with intact(path):
        logits: Logits = np.load(path)
        return logits


def build_ensemble(context: StageContext) -> None:
    """Calibrate the pool, choose the serving members and all weights."""
    config, data = context.config, context.prepared()
    names = tuple(config.learners)
    valid = data.split("valid")
    roles = valid_roles(config, valid)
    labels, weight = labels_of(valid), weights_of(valid)
    raw = pool_logits(context.run, names, "valid")
    route = {name: z[roles.route] for name, z in raw.items()}
    single = calibrated_learners(context.run, names, valid, config)
    calibrated_on = (route, labels[roles.route], weight[roles.route])
    calibrated = {name: blend.logit(raw)[roles.select] for name, blend in single.items()}
    y, w = labels[roles.select], weight[roles.select]
    scorer = PoolScorer({name: context.run.learner(name) / MODEL_ONNX for name in names})
    cost = scorer.cost_us_per_row(valid, layout=data.layout)
    choice = choose_members(
        calibrated,
        y,
        size=config.ensemble.size,
        cost_us_per_row=cost,
        cost_cap_us_per_row=config.ensemble.cost_cap_us_per_row,
        sample_weight=w,
    )
    blends, methods, calibrations, route_auc = {}, {}, {}, {}
    systems = (("static_ensemble", choice.members, MEMBER_FLOOR), ("full_pool", names, 0.0))
    for system, members, floor in systems:
        chosen = choose_weights(
            np.stack([calibrated[m] for m in members], axis=1),
            y,
            methods=config.ensemble.weight_methods,
            seed=config.seed,
            sample_weight=w,
            floor=floor,
        )
        blend = combine([single[m] for m in members], chosen.weights)
        calibration = calibrate_as(config, blend, *calibrated_on)
        blends[system] = calibration.blend
        methods[system] = {"method": chosen.method, "out_of_fold_auc": chosen.out_of_fold_auc}
        calibrations[system] = {"method": calibration.method, "logloss": calibration.logloss}
        route_auc[system] = auc(labels[roles.route], blend.logit(route), weight[roles.route])
    scores = {name: auc(y, z, w) for name, z in calibrated.items()}
    best = max(scores, key=lambda name: scores[name])
    blends["best_single"] = single[best]
    write_json(
        context.out / ENSEMBLE_JSON,
        {
            "members": list(choice.members),
            "best_single": best,
            "select_auc": scores,
            "route_auc": route_auc,
            "cost_us_per_row": cost,
            "weights": methods,
            "calibrations": calibrations,
            "candidates": [
                {"members": m, "auc": a, "cost_us_per_row": c} for m, a, c in choice.candidates[:20]
            ],
            "blends": {name: blend.to_dict() for name, blend in blends.items()},
        },
    )


def calibrated_learners(
    run: RunDirectory, names: tuple[str, ...], valid: EncodedBatch, config: RunConfig
) -> dict[str, Blend]:
    """Every named learner alone, calibrated on `route` rows."""
    rows = valid_roles(config, valid).route
    logits = {name: z[rows] for name, z in pool_logits(run, names, "valid").items()}
    labels, weight = labels_of(valid)[rows], weights_of(valid)[rows]
    return {
        name: calibrate_as(config, Blend({name: 1.0}), logits, labels, weight).blend
        for name in names
    }


def calibrate_as(
    config: RunConfig,
    blend: Blend,
    logits: dict[str, Logits],
    labels: npt.NDArray[np.floating],
    weight: npt.NDArray[np.floating],
) -> CalibrationChoice:
    """Calibrate a blend by the configured method."""
    method = config.ensemble.calibration
    return calibrate(blend, logits, labels, weight, method=method, seed=config.seed)


def combine(blends: list[Blend], weights: npt.NDArray[np.float64]) -> Blend:
    """The blend whose logit is the weighted sum of the given single-model blends' logits."""
    total: dict[str, float] = {}
    bias = 0.0
    for blend, weight in zip(blends, weights, strict=True):
        bias += float(weight) * blend.bias
        for name, value in blend.weights.items():
            total[name] = total.get(name, 0.0) + float(weight) * value
    return Blend(total, bias)


def read_blend(run: RunDirectory, system: str) -> Blend:
    """A blend the ensemble stage chose."""
    return Blend.from_dict(read_json(run.ensemble / ENSEMBLE_JSON)["blends"][system])


def teacher_system(run: RunDirectory, teacher: str) -> str:
    """The system that teaches under a setting of `distill.teacher`."""
    if teacher == "auto":
        scores = read_json(run.ensemble / ENSEMBLE_JSON)["route_auc"]
        better = (scores["static_ensemble"] or 0.0) > (scores["full_pool"] or 0.0)
        return "static_ensemble" if better else "full_pool"
    return {"pool": "full_pool", "ensemble": "static_ensemble"}[teacher]


def best_neural(config: RunConfig, scores: dict[str, float | None]) -> str:
    """The neural learner of the pool with the best AUC (an undefined one counts as the worst)."""
    neural = [name for name, c in config.learners.items() if c.is_neural]
    return max(neural, key=lambda name: scores[name] or 0.0)


def labels_of(batch: EncodedBatch) -> npt.NDArray[np.float32]:
    """(B,) float32 labels of a batch, 0 or 1; the batch must have them."""
    assert batch.labels is not None
    return np.asarray(batch.labels, dtype=np.float32)


def weights_of(batch: EncodedBatch) -> npt.NDArray[np.float32]:
    """(B,) row weights, ones where the table has none."""
    if batch.sample_weight is None:
        return np.ones(len(batch), np.float32)
    return np.asarray(batch.sample_weight, dtype=np.float32)
