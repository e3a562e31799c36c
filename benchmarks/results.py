"""Put the JSON of finished benchmarks into docs/RESULTS.md, with its summary and plots.

    python -m benchmarks.results --from benchmarks/out

Measures nothing. A benchmark whose JSON is absent keeps the section it has on the page, which tells
when it was measured; one that was never measured says so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import (
    accuracy,
    cascade,
    distillation,
    epoch_scaling,
    faults,
    floors,
    load_curve,
    out_of_fold,
    peer_accuracy,
    peers,
    refit,
    routing,
    serving,
    sizes,
    soak,
    soft_labels,
    stacking,
    training_speed,
)
from benchmarks.common import grouped
from dynens.report import plots
from dynens.run import write_json, write_text

DOCS = Path("docs")
MISSING = "Not measured on this machine yet; the command is `{command}`.\n"


def serving_section(data: Mapping[str, Any]) -> str:
    ready = f"ready after {data['ready_s']:.1f} s; budget {data['budget_ms']:.0f} ms"
    return f"Bundle of `{data['run']}`, {ready}.\n\n```\n{serving.table(data)}\n```"


SECTIONS: dict[str, tuple[str, str, Callable[[Mapping[str, Any]], str]]] = {
    "accuracy": (
        "Accuracy at cost",
        "python -m benchmarks.accuracy --data movielens-1m kuairand-pure-history synthetic "
        "--seeds 1 2 3 --out benchmarks/out/accuracy.json",
        accuracy.markdown,
    ),
    "peer_accuracy": (
        "RecBole's models on the same rows",
        "python -m benchmarks.peer_accuracy RUN... --jobs 2 --out F",
        peer_accuracy.markdown,
    ),
    "refit": (
        "Second pass: training on validation rows, too",
        "python -m benchmarks.refit RUN... --out benchmarks/out/refit.json",
        refit.markdown,
    ),
    "cascade": (
        "A confidence cascade at equal cost",
        "python -m benchmarks.cascade RUN... --out benchmarks/out/cascade.json",
        cascade.markdown,
    ),
    "routing": (
        "Routing where the student is behind",
        "python -m benchmarks.routing RUN... --out benchmarks/out/routing.json",
        routing.markdown,
    ),
    "distillation": (
        "Distillation ablation",
        "python -m benchmarks.distillation SAMPLE_RUN --jobs 2 "
        "--out benchmarks/out/distillation.json",
        distillation.markdown,
    ),
    "distillation-demo": (
        "Distillation ablation, the pool of make demo",
        "python -m benchmarks.distillation RUN --seeds 1 --jobs 2 --set distill.faithful.below=0 "
        "--only NAME... --out benchmarks/out/distillation-demo.json",
        distillation.markdown,
    ),
    "out_of_fold": (
        "Soft labels for training rows: in sample or out of fold",
        "python -m benchmarks.out_of_fold RUN --out F",
        out_of_fold.markdown,
    ),
    "stacking": (
        "Ten XGBoost variants, stacked",
        "python -m benchmarks.stacking RUN --out F",
        stacking.markdown,
    ),
    "continual": (
        "Continual distillation: soft labels of an earlier run",
        "python -m benchmarks.soft_labels continual --data kuairand-pure --out F",
        soft_labels.markdown,
    ),
    "federated": (
        "Federated distillation: soft labels of other sites",
        "python -m benchmarks.soft_labels federated --data kuairand-pure --out F",
        soft_labels.markdown,
    ),
    "serving": (
        "Serving",
        "python -m benchmarks.serving RUN --out benchmarks/out/serving.json",
        serving_section,
    ),
    "serving-2": (
        "Serving, another seed",
        "python -m benchmarks.serving RUN --out benchmarks/out/serving-2.json",
        serving_section,
    ),
    "serving-kuairand": (
        "Serving 47 fields",
        "python -m benchmarks.serving KUAIRAND_RUN --out benchmarks/out/serving-kuairand.json",
        serving_section,
    ),
    "serving-kuairand-2": (
        "Serving 47 fields, another seed",
        "python -m benchmarks.serving KUAIRAND_RUN --out benchmarks/out/serving-kuairand-2.json",
        serving_section,
    ),
    "serving-kuairand-3": (
        "Serving 47 fields, a third seed",
        "python -m benchmarks.serving KUAIRAND_RUN --out benchmarks/out/serving-kuairand-3.json",
        serving_section,
    ),
    "load_curve": (
        "Latency over offered rate",
        "python -m benchmarks.load_curve RUN --out benchmarks/out/load_curve.json",
        load_curve.markdown,
    ),
    "load_curve-kuairand": (
        "Latency over offered rate, 47 fields",
        "python -m benchmarks.load_curve KUAIRAND_RUN --out F",
        load_curve.markdown,
    ),
    "sizes": (
        "Candidates per request, and the proxy",
        "python -m benchmarks.sizes RUN --out benchmarks/out/sizes.json",
        sizes.markdown,
    ),
    "floors": (
        "From a bare ONNX session to the server",
        "python -m benchmarks.floors RUN --out benchmarks/out/floors.json",
        floors.markdown,
    ),
    "peers": (
        "The same trio behind Mosec and LitServe",
        "python -m benchmarks.peers RUN --out benchmarks/out/peers.json",
        peers.markdown,
    ),
    "training_speed": (
        "Training speed against FuxiCTR",
        "python -m benchmarks.training_speed --out benchmarks/out/training_speed.json",
        training_speed.markdown,
    ),
    "epoch_scaling": (
        "Epoch time and memory over the number of rows",
        "python -m benchmarks.epoch_scaling --out benchmarks/out/epoch_scaling.json",
        epoch_scaling.markdown,
    ),
    "faults": (
        "Fault injection",
        "python -m benchmarks.faults RUN --out benchmarks/out/faults.json",
        faults.markdown,
    ),
    "soak": (
        "Memory under a constant load",
        "python -m benchmarks.soak RUN --out benchmarks/out/soak.json",
        soak.markdown,
    ),
}
# Raw samples and what a machine is called stay out of git.
RAW = ("samples", "trials", "rounds", "command", "machine")


def render(folder: Path) -> None:
    """Write RESULTS.md, results.json and the SVGs of what was measured."""
    found = {name: data for name in SECTIONS if (data := load(folder, name)) is not None}
    plotted = draw_all(found)
    earlier = earlier_sections()
    parts = [
        "# Results\n",
        "Written by `python -m benchmarks.results` from the JSON of the commands below; no figure "
        "was typed by hand. A run makes its choices on validation rows only, and trains on them "
        "only where the title says so. Intervals are paired 95 % bootstrap intervals over test "
        "rows; ± is the standard deviation over seeds.\n",
        "All sections use the default pool, except on MovieLens-1M: there RecBole's models are "
        "compared with a pool that had a single pair of autoencoders (`autorec`), and the sections "
        "on distillation (but for the demo's pool), soft labels and stacking used a pool without "
        "autoencoders. Accuracy, cascades, routing, serving and the demo's pool are of networks "
        "whose embedding tables have a rate of their own, all else is of those before that.\n",
    ]
    for name, (title, command, section) in SECTIONS.items():
        parts.append(f"## {title}\n")
        if name not in found:
            parts.append(earlier.get(title) or MISSING.format(command=command))
            continue
        data = found[name]
        parts.append(f"`{made_by(name, command, data)}`, {where_and_when(data)}.\n")
        if "bundle_version" in data and not name.startswith("serving"):
            parts.append(f"Bundle of `{data['run']}`.\n")
        parts.append(section(data) + "\n")
        parts += [f"![{title}]({path.name})\n" for path in plotted.get(name, ())]
    write_text(DOCS / "RESULTS.md", "\n".join(parts))
    kept = DOCS / "results.json"
    figures = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    figures |= {name: summary(name, data) for name, data in found.items()}
    write_json(kept, {name: figures[name] for name in SECTIONS if name in figures})


def where_and_when(data: Mapping[str, Any]) -> str:
    """The machine of a benchmark and the day."""
    machine = data.get("environment") or data["machine"]
    first = min((r["date"] for r in data.get("results", ()) if "date" in r), default="")
    day = machine["date"] if first in ("", machine["date"]) else f"{first} to {machine['date']}"
    return f"on {machine['cpu']}, {machine['cpu_count']} cores, {day}"


def earlier_sections() -> dict[str, str]:
    """What the page now says under each title, where that was measured."""
    page = DOCS / "RESULTS.md"
    if not page.is_file():
        return {}
    _, *sections = ("\n" + page.read_text(encoding="utf-8")).split("\n## ")
    texts = {
        title: text.strip("\n") + "\n" for title, _, text in (s.partition("\n") for s in sections)
    }
    unmeasured = MISSING.partition("{")[0]
    return {title: text for title, text in texts.items() if not text.startswith(unmeasured)}


def made_by(name: str, command: str, data: Mapping[str, Any]) -> str:
    """The command that made the figures shown: the options it was given, its paths as RUN and F."""
    if name == "accuracy":
        datasets, seeds = (
            " ".join(map(str, grouped(data["results"], key))) for key in ("dataset", "seed")
        )
        return f"python -m benchmarks.accuracy --data {datasets} --seeds {seeds} --out F"
    if "command" not in data:
        return command
    given = iter(data["command"][1:])
    words = ["python", "-m", f"benchmarks.{Path(data['command'][0]).stem}"]
    for word in given:
        if word == "--out":
            next(given, None)
        else:
            words.append("RUN" if "/" in word else word)
    return " ".join((*words, "--out F"))


def load(folder: Path, name: str) -> dict[str, Any] | None:
    """The full-length JSON of a benchmark, or its short one, or None."""
    for file in (f"{name}-full.json", f"{name}.json", f"{name}-short.json"):
        if (folder / file).is_file():
            data: dict[str, Any] = json.loads((folder / file).read_text(encoding="utf-8"))
            return data
    return None


def summary(name: str, data: Mapping[str, Any]) -> Any:
    """What is worth keeping in git: figures without raw samples."""
    if name == "accuracy":
        keys = (
            *("dataset", "seed", "rows", "systems", "gain_kept", "transfer_efficiency", "paired"),
            "best_possible_auc",
        )
        return [{k: r[k] for k in keys if k in r} for r in data["results"]]
    if "results" in data:
        return data["results"]
    return without_raw(data)


def without_raw(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same without raw samples, at every depth."""
    return {
        key: without_raw(value) if isinstance(value, Mapping) else value
        for key, value in data.items()
        if key not in RAW
    }


def draw_all(found: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Path]]:
    """The SVGs of each section."""
    plotted = {}
    if "accuracy" in found:
        cascades = found.get("cascade", {"results": []})["results"]
        plotted["accuracy"] = draw_accuracy(found["accuracy"]["results"], cascades)
    if "load_curve" in found:
        path = DOCS / "latency-over-rate.svg"
        title = "latency over offered rate (dot: knee)"
        draw(path, title, lambda ax: load_curve.plot(ax, found["load_curve"]))
        plotted["load_curve"] = [path]
    return plotted


def draw_accuracy(
    results: list[dict[str, Any]], cascades: Sequence[Mapping[str, Any]]
) -> list[Path]:
    """AUC over cost of the first seed of every dataset, with the cascade where it was measured."""
    paths = []
    for name, (metrics, *_) in grouped(results, "dataset").items():
        seed = metrics["seed"]
        curves = dict(metrics["auc_cost_curve"])
        for other in cascades:
            if (other["dataset"], other["seed"]) == (name, seed):
                curves["cascade"] = other["curve"]
        shown = {**metrics, "auc_cost_curve": curves}
        path = DOCS / f"auc-cost-{name}.svg"
        draw(path, f"{name}, seed {seed}", partial(plots.auc_cost, metrics=shown))
        paths.append(path)
    return paths


def draw(path: Path, title: str, plot: Callable[[Axes], None]) -> None:
    """One plot as a small SVG that is the same whenever the figures are."""
    with mpl.rc_context({"axes.grid": True, "grid.alpha": 0.25, "svg.hashsalt": "dynens"}):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        ax = figure.subplots()
        ax.spines[["top", "right"]].set_visible(False)
        plot(ax)
        ax.set_title(title, loc="left", fontsize=10)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="folder", type=Path, default=Path("benchmarks/out"))
    render(parser.parse_args().folder)


if __name__ == "__main__":
    main()
