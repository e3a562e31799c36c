"""`report.html`: one self-contained page, plots embedded."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from typing import Any

import jinja2
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynens.batch import FIRST_VALUE_ID, MISSING, EncodedBatch
from dynens.data.encoding.encoders import RowEncoder
from dynens.data.encoding.fields import CategoricalEncoder
from dynens.data.encoding.list_field import MultiValuedEncoder
from dynens.data.encoding.lookups import LookUpEncoder
from dynens.data.encoding.pairs import BETWEEN
from dynens.data.prepared import PreparedData
from dynens.evaluation.systems import Scored
from dynens.report import plots
from dynens.report.analysis import correlation_matrix, hard_slices, reliability_curves
from dynens.report.console import describe, headline, number, share, signed
from dynens.run import ENSEMBLE_JSON, FIT_REPORT, ROUTER_JSON, RunDirectory, read_json, write_text

REPORT_HTML = "report.html"
FIGURE_SIZE_INCHES = (6.4, 4.2)
DPI = 130


def render(
    run: RunDirectory,
    metrics: Mapping[str, Any],
    scored: Scored,
    batch: EncodedBatch,
    data: PreparedData,
) -> None:
    """Write the plots and `report.html` of an evaluated run."""
    names, matrix = correlation_matrix(scored)
    reliability = reliability_curves(scored, batch)
    trainings = _trainings(run.held_out)
    curves = {name: report["curve"] for name, report in trainings.items()}
    figures: dict[str, Callable[[Axes], None]] = {
        "auc_cost": lambda ax: plots.auc_cost(ax, metrics),
        "auc_fraction": lambda ax: plots.auc_fraction(ax, metrics),
        "reliability": lambda ax: plots.reliability(ax, reliability),
        "correlation": lambda ax: plots.correlation(ax, names, matrix),
        "training": lambda ax: plots.training_curves(ax, curves),
    }
    images = {name: _save(run, name, draw) for name, draw in figures.items()}
    template = resources.files("dynens.report").joinpath("template.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters.update(number=number, share=share, signed=signed)
    page = environment.from_string(template).render(
        metrics=metrics,
        headline=headline(metrics),
        describe=describe,
        images=images,
        slices=hard_slices(
            scored, batch, data.layout, data.id_frequency, partial(value_name, data.encoder)
        ),
        environment=read_json(run.environment),
        router=read_json(run.router / ROUTER_JSON),
        ensemble=read_json(run.ensemble / ENSEMBLE_JSON),
        int8_trials=_int8_trials(run),
        student=_labels_told(run),
        cut=[name for name, report in trainings.items() if report.get("is_cut")],
        data_report=data.report,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        colours=plots.COLOURS,
    )
    write_text(run.report / REPORT_HTML, page)


def value_name(encoder: RowEncoder, field: str, value_id: int) -> str:
    """What an id of a categorical field stands for, in the table's own words."""
    if value_id < FIRST_VALUE_ID:
        return "missing" if value_id == MISSING else "unknown"
    for item in encoder.encoders:
        if isinstance(item, LookUpEncoder) and item.spec.name == field:
            return value_name(encoder, item.spec.vocabulary_of or "", value_id)
        if isinstance(item, CategoricalEncoder | MultiValuedEncoder) and item.spec.name == field:
            values = item.vocabulary.values
            position = value_id - FIRST_VALUE_ID
            if position < len(values):
                return str(values[position].as_py()).replace(BETWEEN, " × ")
    return f"bucket {value_id - FIRST_VALUE_ID}"


def _trainings(run: RunDirectory) -> dict[str, Mapping[str, Any]]:
    """How each training went, by the name of what was trained."""
    directories = {path.name: path for path in sorted(run.learners.iterdir())}
    directories |= {"baseline": run.baseline, "student": run.student}
    return {name: read_json(path / FIT_REPORT) for name, path in directories.items()}


def _labels_told(run: RunDirectory) -> Mapping[str, Any]:
    """What labels taught the student beside its teacher, and whether one without them replaced it
    (`dynens.distill.evidence`); None where it was not asked."""
    report = read_json(run.student / FIT_REPORT)
    return {name: report.get(name) for name in ("departures_tell", "faithful")}


def _int8_trials(run: RunDirectory) -> Mapping[str, Mapping[str, Any]]:
    """What INT8 gave for every network of the run; empty where it was not tried."""
    path = run.router / "quantization.json"
    trials: Mapping[str, Mapping[str, Any]] = read_json(path) if path.is_file() else {}
    return {name: trial for name, trial in trials.items() if trial["int8"] is not None}


def _save(run: RunDirectory, name: str, draw: Callable[[Axes], None]) -> str:
    """Write one plot as PNG and return it as a data URI."""
    run.report.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"axes.grid": True, "grid.alpha": 0.25, "font.size": 10}):
        figure = Figure(figsize=FIGURE_SIZE_INCHES, layout="constrained")
        ax = figure.subplots()
        ax.spines[["top", "right"]].set_visible(False)
        draw(ax)
        path = run.report / f"{name}.png"
        figure.savefig(path, dpi=DPI)
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
