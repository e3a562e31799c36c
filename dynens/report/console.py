"""The table of systems on a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_CLEARLY = 1e-3  # of AUC
_TOO_GOOD = 0.98  # AUC that clicks hardly allow
_BEHIND_IT = 2  # fields named then
_FAR_OFF, _WORSE_THAN_A_RATE = 1.5, 1.1  # predicted over observed, and normalised entropy

LABELS = {
    "baseline": "baseline (student's size, labels only)",
    "best_single": "best single model on validation rows",
    "student": "student (distilled)",
    "static_ensemble": "static ensemble (trio, every row)",
    "static_ensemble_with_student": "static ensemble + student's voice",
    "full_pool": "full pool",
    "dynamic": "dynamic (routed)",
    "random_route": "random routing, same fraction",
}


def number(value: float | None, digits: int = 4) -> str:
    """A figure, or a dash where it is undefined."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float | None) -> str:
    """A difference with its sign, or a dash where it is undefined."""
    return "–" if value is None or math.isnan(value) else f"{value:+.4f}"


def share(value: float | None) -> str:
    """A share of a gain in words that cannot mislead: outside [0, 1] it is all or none of it."""
    if value is None or math.isnan(value):
        return "–"
    return "all" if value >= 1 else "none" if value <= 0 else f"{value:.0%}"


def describe(name: str, system: Mapping[str, Any]) -> str:
    """A system's name with what is particular to it."""
    if "members" in system:
        return f"static ensemble ({', '.join(system['members'])})"
    if "name" in system:
        return f"{LABELS[name]}: {system['name']}"
    if "hard_fraction" in system:
        return f"{LABELS[name]}, {system['hard_fraction']:.0%} hard"
    return LABELS[name]


def print_metrics(console: Console, metrics: Mapping[str, Any]) -> None:
    """Print the table of systems and the two sentences that matter."""
    rows = metrics["rows"]
    title = f"{metrics['dataset']}: {rows['test']:,} test rows, seed {metrics['seed']}"
    table = Table(title=title, title_justify="left")
    table.add_column("system", overflow="fold")
    for column in ("AUC", "GAUC", "logloss", "ECE", "µs/row", "ranking"):
        table.add_column(column, justify="right")
    for name, system in metrics["systems"].items():
        table.add_row(
            describe(name, system),
            number(system["auc"]),
            number(system["gauc"]),
            number(system["logloss"]),
            number(system["ece"]),
            number(system["cost_us_per_row"], 2),
            number(system.get("candidate_cost_us_per_row"), 2),
        )
    console.print(table)
    for sentence in headline(metrics):
        console.print(sentence, highlight=False, soft_wrap=True)


def _status(status: object) -> str:
    return "no answer" if str(status) == "0" else str(status)


def print_load(console: Console, load: Mapping[str, Any]) -> None:
    """Print what a load test's client saw."""
    errors = ", ".join(f"{n} × {_status(s)}" for s, n in load["errors"].items()) or "none"
    lines = (
        f"offered {load['offered_qps']:.1f} requests/s of {load['rows_per_request']} rows for "
        f"{load['duration_s']:.0f} s; answered {load['achieved_qps']:.1f}/s",
        f"latency at the client: p50 {load['p50_ms']:.2f}, p95 {load['p95_ms']:.2f}, "
        f"p99 {load['p99_ms']:.2f}, p99.9 {load['p999_ms']:.2f}, max {load['max_ms']:.2f} ms",
        f"hard rows: {load['hard_share']:.1%} wanted, {load['granted_share']:.2%} of them granted; "
        f"{load['degraded']} answers degraded",
        f"answers that left the server in time and reached the client late: {load['late']}",
        f"errors: {errors}; not sent: {load['not_sent']}; error rate {load['error_rate']:.3%}",
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def trial_line(load: Mapping[str, Any], kept: bool) -> str:
    """One trial of a search for the peak, and whether it kept the promise."""
    line = f"{load['offered_qps']:8.1f}/s: p99 {load['p99_ms']:7.2f} ms, errors "
    line += f"{load['error_rate']:.2%}, hard rows granted {load['granted_share']:.1%}"
    return f"{line}: {'kept' if kept else 'broken'}"


def relative_cost(system: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """What a system costs of another, in words."""
    text = f"{system['cost_us_per_row'] / whole['cost_us_per_row']:.0%} of its cost"
    ranking = system.get("candidate_cost_us_per_row")
    if ranking is None:
        return text
    return f"{text} ({ranking / whole['candidate_cost_us_per_row']:.0%} in ranking requests)"


def headline(metrics: Mapping[str, Any]) -> list[str]:
    """What the figures mean, in plain sentences."""
    systems = metrics["systems"]
    dynamic, static = systems["dynamic"], systems["static_ensemble"]
    sentences = []
    kept = metrics["gain_kept"]
    if number(static["auc"]) == number(None):
        return ["These rows are all of one class, so that no AUC is defined and nothing compared."]
    gain = metrics["paired"].get("static_ensemble_minus_baseline")
    if gain is not None and gain["low"] <= 0 < gain["value"]:
        sentences.append(
            f"The ensemble's gain over one model trained on labels alone, {gain['value']:+.4f} AUC "
            f"with a 95 % interval of [{gain['low']:+.4f}, {gain['high']:+.4f}], is within noise "
            "on these rows; more of them would tell, and until then the student is the cheap "
            "choice."
        )
    elif kept is not None and not math.isnan(kept):
        sentences.append(
            f"The dynamic system keeps {share(kept)} of the ensemble's gain over one model trained "
            f"on the labels alone at {relative_cost(dynamic, static)}, sending "
            f"{dynamic['hard_fraction']:.1%} of rows to it."
        )
    else:
        sentences.append(
            "The ensemble is not better than the baseline on these rows, so there is no gain to "
            "keep; serve the student."
        )
    student = systems["student"]
    if dynamic["hard_fraction"] > 0 and student["auc"] >= dynamic["auc"]:
        how = "better" if student["auc"] - dynamic["auc"] >= _CLEARLY else "as well"
        sentences.append(
            f"The student alone ranks these rows {how} (AUC {number(student['auc'])}) at "
            f"{student['cost_us_per_row']:.2f} µs a row instead of "
            f"{dynamic['cost_us_per_row']:.2f}; `dynens serve --system student` serves it."
        )
    sentences += _one_alone(metrics)
    if static["auc"] >= _TOO_GOOD:
        sentences.insert(0, _too_good(metrics))
    if _is_far_off(dynamic):
        sentences.insert(
            0,
            f"Probabilities are far off on these rows: {dynamic['calibration_ratio']:.2g} times as "
            "many positive rows are predicted as there are, and these rows' own average would tell "
            "more. They are not like the rows that calibration saw, earlier ones where the cut is "
            "by time; train with newer rows, or use the order alone.",
        )
    if dynamic["hard_fraction"] == 0:
        sentences.append(
            "No row is routed to the ensemble: none of these is hard by the threshold, which "
            "validation rows settled."
        )
    if metrics.get("refit"):
        judges = metrics["rows"]["valid"]
        sentences.append(
            f"All models were trained twice: once to settle everything on {judges:,} validation "
            "rows, and once more with these among the training rows."
        )
    return sentences


def _one_alone(metrics: Mapping[str, Any]) -> list[str]:
    """Where a single model is ahead of all that is made of several, beyond what chance does."""
    behind = metrics["paired"].get("student_minus_best_single")
    if behind is None or behind["high"] >= 0:
        return []
    best, dynamic = metrics["systems"]["best_single"], metrics["systems"]["dynamic"]
    if best["auc"] - dynamic["auc"] < _CLEARLY:
        return []
    return [
        f"{best['name']} alone, the best single model on validation rows, ranks these rows better "
        f"than the dynamic system does (AUC {number(best['auc'])} against "
        f"{number(dynamic['auc'])}), at {best['cost_us_per_row']:.2f} µs a row instead of "
        f"{dynamic['cost_us_per_row']:.2f}."
    ]


def _is_far_off(system: Mapping[str, Any]) -> bool:
    """Whether a system's probabilities are wrong by more than few positive rows make them."""
    entropy, ratio = system.get("normalized_entropy"), system.get("calibration_ratio")
    if entropy is None or ratio is None or not entropy > _WORSE_THAN_A_RATE:
        return False
    return bool(ratio > _FAR_OFF or ratio < 1 / _FAR_OFF)


def _too_good(metrics: Mapping[str, Any]) -> str:
    """What an AUC beyond all experience hangs on."""
    fields = metrics.get("attribution", {}).get("fields", [])[:_BEHIND_IT]
    names = " and ".join(field["name"] for field in fields)
    most = f"; the answers hang most on {names}" if names else ""
    return (
        f"An AUC of {metrics['systems']['static_ensemble']['auc']:.4f} is hardly ever honest: name "
        f"columns that are only known after the outcome in features.excluded{most}."
    )
