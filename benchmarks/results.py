"""Put the JSON of finished benchmarks into docs/RESULTS.md, with its summary and plots.

    python -m benchmarks.results --from benchmarks/out

Measures nothing. A benchmark whose JSON is absent is left out, and the page says so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks import accuracy, distillation, serving
from dynens.report import plots
from dynens.run import write_json, write_text

DOCS = Path("docs")
MISSING = "Not measured on this machine yet; the command is `{command}`.\n"


def accuracy_section(data: Mapping[str, Any]) -> str:
    return accuracy.markdown(data["results"])


def distillation_section(data: Mapping[str, Any]) -> str:
    return distillation.summary(data["results"])


def serving_section(data: Mapping[str, Any]) -> str:
    ready = f"ready after {data['ready_s']:.1f} s; budget {data['budget_ms']:.0f} ms"
    return f"Bundle of `{data['run']}`, {ready}.\n\n```\n{serving.table(data)}\n```"


SECTIONS: dict[str, tuple[str, str, Callable[[Mapping[str, Any]], str]]] = {
    "accuracy": (
        "Accuracy at cost",
        "python -m benchmarks.accuracy --data movielens-1m kuairand-pure-history --dir DIR "
        "--seeds 1 2 3 --out benchmarks/out/accuracy.json",
        accuracy_section,
    ),
    "distillation": (
        "Ways to make the student",
        "python -m benchmarks.distillation RUN --out benchmarks/out/distillation.json",
        distillation_section,
    ),
    "serving": (
        "Serving",
        "python -m benchmarks.serving RUN --out benchmarks/out/serving.json",
        serving_section,
    ),
}


def render(folder: Path) -> None:
    """Write RESULTS.md, results.json and one SVG per dataset."""
    found = {name: data for name in SECTIONS if (data := load(folder, name)) is not None}
    parts = [
        "# Results\n",
        f"Made by `python -m benchmarks.results` on {datetime.now(UTC):%Y-%m-%d} from the JSON of "
        "the commands below; nothing was typed by hand. A run chooses on validation rows only. "
        "Intervals are paired 95 % bootstrap intervals over test rows.\n",
    ]
    for name, (title, command, section) in SECTIONS.items():
        parts.append(f"## {title}\n")
        if name not in found:
            parts.append(MISSING.format(command=command))
            continue
        data = found[name]
        machine = data.get("environment") or data["machine"]
        cores = machine["cpu_count"]
        parts.append(f"`{made_by(name, command, data)}`, on {machine['cpu']}, {cores} cores.\n")
        parts.append(section(data) + "\n")
        if name == "accuracy":
            parts += [f"![AUC at cost]({path.name})\n" for path in draw(data["results"])]
    write_text(DOCS / "RESULTS.md", "\n".join(parts))
    write_json(DOCS / "results.json", {name: summary(name, data) for name, data in found.items()})


def made_by(name: str, command: str, data: Mapping[str, Any]) -> str:
    """The command that made the figures shown, which may be shorter than the full one."""
    if name == "accuracy":
        datasets = " ".join(dict.fromkeys(r["dataset"] for r in data["results"]))
        seeds = " ".join(str(seed) for seed in dict.fromkeys(r["seed"] for r in data["results"]))
        return f"python -m benchmarks.accuracy --data {datasets} --dir DIR --seeds {seeds} --out F"
    if name == "serving" and "--short" in data["command"]:
        return "python -m benchmarks.serving RUN --short --out F"
    return command


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
        keys = ("dataset", "seed", "rows", "systems", "gain_kept", "transfer_efficiency", "paired")
        return [{key: result[key] for key in keys} for result in data["results"]]
    if name == "serving":
        return {
            k: v for k, v in data.items() if k not in ("samples", "trials", "command", "machine")
        }
    return data["results"]


def draw(results: list[dict[str, Any]]) -> list[Path]:
    """AUC over cost of the first seed of every dataset, as SVG."""
    paths = []
    for name in dict.fromkeys(r["dataset"] for r in results):
        metrics = next(r for r in results if r["dataset"] == name)
        with mpl.rc_context({"axes.grid": True, "grid.alpha": 0.25, "svg.hashsalt": "dynens"}):
            figure = Figure(figsize=(6.4, 4.2), layout="constrained")
            ax = figure.subplots()
            ax.spines[["top", "right"]].set_visible(False)
            plots.auc_cost(ax, metrics)
            ax.set_title(f"{name}, seed {metrics['seed']}", loc="left", fontsize=10)
            path = DOCS / f"auc-cost-{name}.svg"
            figure.savefig(path, metadata={"Date": None})
        paths.append(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="folder", type=Path, default=Path("benchmarks/out"))
    render(parser.parse_args().folder)


if __name__ == "__main__":
    main()
