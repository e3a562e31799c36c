"""Every benchmark in one go.

    python -m benchmarks.run_all --short    into benchmarks/out (ignored by git), under 15 minutes
    python -m benchmarks.run_all --full     the same at full length, then docs/RESULTS.md

Each benchmark is a command of its own; this only runs them one after the other, so that nothing
else is running while one measures.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import distillation

OUT = Path("benchmarks/out")
RUNS = Path("runs/bench")
KUAIRAND = "kuairand-pure-history"
SERVING = ("serving", "load_curve", "sizes", "floors", "peers")


@dataclass(frozen=True)
class Step:
    """One benchmark: a module of this package, its arguments and the JSON it writes."""

    module: str
    arguments: tuple[str, ...]
    out: Path


def steps(short: bool) -> list[Step]:
    """What is run, in order; the serving benchmarks use the first accuracy run's bundle."""
    length = "short" if short else "full"
    runs = RUNS / length
    data = ["movielens-1m-sample"] if short else ["movielens-1m"]
    seeds = ["1"] if short else ["1", "2", "3"]
    has_kuairand = bool(os.environ.get("DYNENS_DATA_HOME")) and not short
    if has_kuairand:
        data.append(KUAIRAND)
    fast = ["--set", "distill.augmented_per_row=0.5"] if short else []
    run = str(runs / f"{data[0]}-1")
    accuracy = ("--data", *data, "--seeds", *seeds, "--runs", str(runs), *fast)
    every_run = tuple(str(runs / f"{name}-{seed}") for seed in seeds for name in data)
    variants = ("--seeds", *seeds)
    if short:
        variants += ("--only", *distillation.SHORT)

    def step(name: str, *arguments: str, label: str = "") -> Step:
        out = OUT / f"{label or name}-{length}.json"
        return Step(f"benchmarks.{name}", (*arguments, "--out", str(out)), out)

    short_flag = ("--short",) if short else ()
    long = [] if short else [step("training_speed")]
    if has_kuairand:
        wide = str(runs / f"{KUAIRAND}-1")
        long.append(step("serving", wide, "--budget-ms", "16", label="serving-kuairand"))
    return [
        step("accuracy", *accuracy),
        step("cascade", *every_run),
        step("distillation", run, *variants),
        *(step(name, run, *short_flag) for name in SERVING),
        *long,
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--short", action="store_true")
    choice.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    failed = [step.module for step in steps(arguments.short) if not run(step)]
    if arguments.full:
        subprocess.run([sys.executable, "-m", "benchmarks.results", "--from", str(OUT)], check=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(step: Step) -> bool:
    """Whether a benchmark ended well; figures of an earlier run must not pass for its own."""
    step.out.unlink(missing_ok=True)
    print(f"python -m {step.module} {' '.join(step.arguments)}", flush=True)
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", step.module, *step.arguments], check=False)
    print(f"{step.module} took {time.monotonic() - started:.0f} s", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
