"""Plots of a report. Every function draws computed results on an `ax`; nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

# Okabe & Ito's palette, told apart by colour-blind readers; one colour per system everywhere.
COLOURS = {
    "baseline": "#999999",
    "best_single": "#E69F00",
    "student": "#56B4E9",
    "static_ensemble": "#D55E00",
    "static_ensemble_with_student": "#CC79A7",
    "full_pool": "#F0E442",
    "dynamic": "#0072B2",
    "router": "#0072B2",
    "random": "#000000",
    "random_route": "#000000",
    "oracle": "#009E73",
    "cascade": "#882255",
}


def auc_cost(ax: Axes, metrics: Mapping[str, Any]) -> None:
    """AUC over cost per row: the router's curve, random routing and the fixed systems.

    A confidence cascade's curve is drawn where there is one.
    """
    curves = metrics["auc_cost_curve"]
    for name, style, label in (
        ("router", "-", "routed by difficulty"),
        ("random", "--", "routed at random"),
        ("cascade", ":", "confidence cascade (trio alone)"),
    ):
        points = curves.get(name, ())
        if not points:
            continue
        ax.plot(
            [p["cost_us_per_row"] for p in points],
            [p["auc"] for p in points],
            style,
            color=COLOURS[name],
            label=label,
        )
    for name, label in (
        ("baseline", "baseline"),
        ("best_single", "best single"),
        ("student", "student"),
        ("static_ensemble", "static ensemble"),
        ("dynamic", "dynamic"),
    ):
        system = metrics["systems"][name]
        ax.plot(
            system["cost_us_per_row"],
            system["auc"],
            "o",
            color=COLOURS[name],
            markersize=9 if name == "dynamic" else 7,
            label=label,
        )
    ax.set_xlabel("engine cost (µs per row, one thread)")
    ax.set_ylabel("test AUC")
    ax.legend(fontsize=8, frameon=False, loc="best")


def auc_fraction(ax: Axes, metrics: Mapping[str, Any]) -> None:
    """AUC over the hard fraction, with the trio as reference and the oracle as bound."""
    curves = metrics["auc_cost_curve"]
    labels = {
        "router": "router",
        "random": "random",
        "oracle": "oracle (knows the ensemble's answer)",
    }
    for name, label in labels.items():
        if name not in curves:
            continue
        ax.plot(
            [100 * p["hard_fraction"] for p in curves[name]],
            [p["auc"] for p in curves[name]],
            {"router": "-", "random": "--", "oracle": ":"}[name],
            color=COLOURS[name],
            label=label,
        )
    static, dynamic = metrics["systems"]["static_ensemble"], metrics["systems"]["dynamic"]
    ax.axhline(static["auc"], color=COLOURS["static_ensemble"], linewidth=1, label="static trio")
    ax.plot(100 * dynamic["hard_fraction"], dynamic["auc"], "o", color=COLOURS["dynamic"])
    ax.set_xlabel("rows sent to the ensemble (%)")
    ax.set_ylabel("test AUC")
    ax.legend(fontsize=8, frameon=False, loc="best")


def reliability(ax: Axes, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    """Observed click rate over mean prediction, per route and pooled."""
    colours = {"student route": "student", "ensemble route": "static_ensemble", "pooled": "dynamic"}
    highest = 0.0
    for name, (predicted, observed) in curves.items():
        ax.plot(predicted, observed, "o-", color=COLOURS[colours[name]], markersize=4, label=name)
        highest = max([highest, *predicted, *observed])
    ax.plot([0, highest], [0, highest], color="#bbbbbb", linewidth=1, zorder=0)
    ax.set_xlabel("mean predicted probability")
    ax.set_ylabel("observed click rate")
    if curves:
        ax.legend(fontsize=8, frameon=False)


def correlation(ax: Axes, names: Sequence[str], matrix: npt.NDArray[np.floating]) -> None:
    """Correlation of the models' logits."""
    lowest = min(float(np.nanmin(matrix)), 0.9)
    ax.imshow(matrix, cmap="cividis", vmin=lowest, vmax=1.0)
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    for i in range(len(names)):
        for j in range(len(names)):
            shade = "white" if matrix[i, j] < (lowest + 1) / 2 else "black"
            ax.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=7, color=shade)
    ax.grid(visible=False)


def training_curves(ax: Axes, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Validation AUC over epochs of every model of the run."""
    for name, points in curves.items():
        kept = [(p["epoch"], p["valid_auc"]) for p in points if p["valid_auc"] is not None]
        if not kept:
            continue
        emphasis = name in ("student", "baseline")
        ax.plot(
            *zip(*kept, strict=True),
            color=COLOURS.get(name),
            linewidth=2 if emphasis else 1,
            label=name,
        )
    ax.set_xscale("log")
    ax.set_xlabel("epoch (trees: boosting rounds, bmf: sweeps)")
    ax.set_ylabel("validation AUC")
    ax.legend(fontsize=8, frameon=False, loc="lower right")
