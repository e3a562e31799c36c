"""Evaluating a run: `report/metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dynens.batch import EncodedBatch
from dynens.bootstrap import PairedAUC, RandomRouteAUC
from dynens.config.run import ReportConfig
from dynens.evaluation.attribution import field_attribution
from dynens.evaluation.costs import Costs, cost_shares, measure_costs
from dynens.evaluation.systems import (
    SYSTEMS,
    RunSystems,
    Scored,
    redundancy,
    score_rows,
)
from dynens.metrics import auc, evaluate_probabilities, gauc, logloss
from dynens.run import FIT_REPORT, RunDirectory, read_json

CURVE_FRACTIONS = (
    *np.round(np.arange(0, 0.105, 0.02), 2).tolist(),
    *np.round(np.arange(0.15, 1.001, 0.05), 2).tolist(),
)
RANDOM_CURVE_DRAWS = 5
PAIRS = (
    ("dynamic", "static_ensemble"),
    ("dynamic", "baseline"),
    ("dynamic", "random_route"),
    ("student", "baseline"),
    ("student", "best_single"),
    ("static_ensemble", "best_single"),
    ("static_ensemble", "baseline"),
    ("full_pool", "static_ensemble"),
)


def evaluate_rows(
    systems: RunSystems,
    batch: EncodedBatch,
    *,
    dataset: str,
    seed: int,
    rows: Mapping[str, int],
    options: ReportConfig,
    stability: float | None = None,
) -> tuple[dict[str, Any], Scored]:
    """Every figure of `metrics.json` on labelled rows, and the scores behind them.

    Undefined metrics (a single class, no groups) are NaN here and become null in JSON.
    """
    assert batch.labels is not None
    scored = score_rows(systems, batch)
    costs = measure_costs(systems, batch, repeats=options.cost_repeats)
    shares = cost_shares(systems, batch, CURVE_FRACTIONS, repeats=options.cost_repeats)
    table = _system_table(systems, scored, batch, costs, options, seed)
    metrics = {
        "dataset": dataset,
        "seed": seed,
        "rows": dict(rows),
        "systems": table,
        "auc_cost_curve": _curves(scored, batch, costs.rows, shares, seed),
        "gain_kept": _share(table, "dynamic", "static_ensemble"),
        "transfer_efficiency": {
            "gain_share": _share(table, "student", "full_pool"),
            **_agreement(systems, scored, batch.sample_weight),
        },
        "redundancy": redundancy(systems, scored.logits, batch),
        "attribution": field_attribution(systems, batch, seed),
        "stability": stability,
        "paired": _paired(scored, batch, options, seed),
    }
    return metrics, scored


def _system_table(
    systems: RunSystems,
    scored: Scored,
    batch: EncodedBatch,
    costs: Costs,
    options: ReportConfig,
    seed: int,
) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for name in SYSTEMS:
        if name == "random_route":
            values = _random_route(scored, batch, options.random_route_draws, seed)
        else:
            values = _metrics(batch, scored.probabilities[name])
        table[name] = {
            **values,
            "cost_us_per_row": costs.rows[name],
            "candidate_cost_us_per_row": costs.candidates.get(name),
        }
    table["best_single"]["name"] = systems.best_single
    table["static_ensemble"]["members"] = list(systems.members)
    for name in ("dynamic", "random_route"):
        table[name]["hard_fraction"] = scored.hard_fraction
    return table


def _metrics(batch: EncodedBatch, probability: npt.NDArray[np.floating]) -> dict[str, float]:
    assert batch.labels is not None
    return vars(
        evaluate_probabilities(batch.labels, probability, batch.sample_weight, batch.groups)
    )


def _random_route(scored: Scored, batch: EncodedBatch, draws: int, seed: int) -> dict[str, float]:
    """Mean metrics over draws that send as many rows to the ensemble as the router did."""
    results = [
        _metrics(batch, p) for p in _random_draws(scored, int(scored.route.sum()), draws, seed)
    ]
    return {key: float(np.mean([r[key] for r in results])) for key in results[0]}


def _random_draws(
    scored: Scored, count: int, draws: int, seed: int
) -> list[npt.NDArray[np.float32]]:
    generator = np.random.default_rng([seed, 0xDA])
    routed = []
    for _ in range(draws):
        hard = np.zeros(len(scored.route), dtype=bool)
        hard[generator.permutation(len(hard))[:count]] = True
        routed.append(scored.routed(hard))
    return routed


def _curves(
    scored: Scored,
    batch: EncodedBatch,
    costs: Mapping[str, float],
    shares: Mapping[float, float],
    seed: int,
) -> dict[str, list[dict[str, float]]]:
    """Router, random and oracle routing at fixed hard fractions.

    Cost runs from the student's to that of the hard route on every row, by the measured `shares` of
    the way between them. The oracle knows the ensemble's answer and sends the rows that it would
    move furthest.
    """
    orders = {
        "router": np.argsort(-scored.difficulty, kind="stable"),
        "oracle": np.argsort(-_true_gap(scored), kind="stable"),
    }
    hardest = costs["static_ensemble_with_student"] - costs["student"]
    curves: dict[str, list[dict[str, float]]] = {"router": [], "random": [], "oracle": []}
    for fraction in CURVE_FRACTIONS:
        count = round(fraction * len(batch))
        cost = costs["student"] + shares[fraction] * max(hardest, 0.0)
        for name, order in orders.items():
            hard = np.zeros(len(batch), dtype=bool)
            hard[order[:count]] = True
            curves[name].append(_point(batch, [scored.routed(hard)], fraction, cost))
        random = _random_draws(scored, count, RANDOM_CURVE_DRAWS, seed)
        curves["random"].append(_point(batch, random, fraction, cost))
    return curves


def _point(
    batch: EncodedBatch, routed: list[npt.NDArray[np.float32]], fraction: float, cost: float
) -> dict[str, float]:
    assert batch.labels is not None
    y, w, g = batch.labels, batch.sample_weight, batch.groups
    return {
        "hard_fraction": fraction,
        "auc": float(np.mean([auc(y, p, w) for p in routed])),
        "gauc": float("nan") if g is None else float(np.mean([gauc(y, p, g, w) for p in routed])),
        "logloss": float(np.mean([logloss(y, p, w) for p in routed])),
        "cost_us_per_row": cost,
    }


def _true_gap(scored: Scored) -> npt.NDArray[np.float64]:
    """|Δrank|: how far each row would move among all others, whether that is right or not."""
    easy = scored.probabilities["student"]
    hard = scored.probabilities["static_ensemble_with_student"]
    reference = np.sort(easy)
    moved = np.searchsorted(reference, hard) - np.searchsorted(reference, easy)
    return np.asarray(np.abs(moved), dtype=np.float64)


def _share(table: Mapping[str, Mapping[str, Any]], system: str, ceiling: str) -> float:
    """(system - baseline) / (ceiling - baseline) in AUC; NaN where the ceiling adds nothing."""
    base = table["baseline"]["auc"]
    gain = table[ceiling]["auc"] - base
    return float((table[system]["auc"] - base) / gain) if gain > 0 else float("nan")


def _agreement(
    systems: RunSystems, scored: Scored, weight: npt.NDArray[np.floating] | None
) -> dict[str, float]:
    """How close the student is to the full pool, which taught it; (weighted) over rows."""
    logits = [systems.blends[name].logit(scored.logits) for name in ("full_pool", "student")]
    (pool, both), (_, student) = np.cov(logits, ddof=0, aweights=weight)
    gap = scored.probabilities["student"] - scored.probabilities["full_pool"]
    return {
        "logit_correlation": float(both / np.sqrt(pool * student) if pool * student > 0 else "nan"),
        "mean_abs_dp": float(np.average(np.abs(gap), weights=weight)),
    }


def _paired(
    scored: Scored, batch: EncodedBatch, options: ReportConfig, seed: int
) -> dict[str, dict[str, float]]:
    """Differences in AUC between systems with paired 95 % bootstrap intervals.

    That of random routing is its mean over all draws: the luck of a single one is as large as what
    a router may gain.
    """
    assert batch.labels is not None
    by_chance = RandomRouteAUC(
        batch.labels,
        scored.probabilities["student"],
        scored.probabilities["static_ensemble_with_student"],
        scored.hard_fraction,
    )
    paired = PairedAUC(
        batch.labels,
        {**scored.probabilities, "random_route": by_chance},
        draws=options.bootstrap_draws,
        seed=seed,
        sample_weight=batch.sample_weight,
    )
    return {f"{a}_minus_{b}": paired.difference(a, b) for a, b in PAIRS}


def student_stability(run: RunDirectory) -> float | None:
    """Coefficient of variation of the student's training loss over the last half of its run."""
    curve = read_json(run.student / FIT_REPORT)["curve"]
    losses = [p["train_loss"] for p in curve if p["train_loss"] is not None]
    late = np.array(losses[len(losses) // 2 :], dtype=np.float64)
    if len(late) < 2 or late.mean() == 0:
        return None
    return float(late.std() / late.mean())
