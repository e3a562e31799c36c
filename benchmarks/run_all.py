"""Every benchmark in one go.

    python -m benchmarks.run_all --short    into benchmarks/out (ignored by git), about 15 minutes
    python -m benchmarks.run_all --full     the same at full length, then docs/RESULTS.md
    python -m benchmarks.run_all --full --begin-with serving    what is left of one broken off

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

from benchmarks import soft_labels
from benchmarks.student_variants import SHORT, WEIGHED

OUT = Path("benchmarks/out")
RUNS = Path("runs/bench")
SAMPLE, WHOLE, KUAIRAND = "movielens-1m-sample", "movielens-1m", "kuairand-pure-history"
# The lowest rates would take the short form beyond a quarter of an hour.
SHORTER = {"load_curve": ("--start-qps", "60")}
SERVING = ("serving", "load_curve", "sizes", "floors", "peers")


@dataclass(frozen=True)
class Step:
    """One benchmark.

    Attributes:
        name: of its section on the results page.
        module: of this package.
        arguments: its command line.
        out: the JSON it writes.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    out: Path


def steps(short: bool) -> list[Step]:
    """What is run, in order; the serving benchmarks use the first accuracy run's bundle."""
    length = "short" if short else "full"
    runs = RUNS / length

    def step(name: str, *arguments: str, module: str = "") -> Step:
        out = OUT / f"{name}-{length}.json"
        return Step(name, f"benchmarks.{module or name}", (*arguments, "--out", str(out)), out)

    def run_of(data: str, seed: str = "1") -> str:
        return str(runs / f"{data}-{seed}")

    def accuracy(data: list[str], seeds: list[str], *more: str, name: str = "accuracy") -> Step:
        folder = runs / "refit" if "refit=true" in more else runs
        given = ("--data", *data, "--seeds", *seeds, "--runs", str(folder), *more)
        return step(name, *given, module="accuracy")

    if short:
        run = run_of(SAMPLE)
        return [
            accuracy([SAMPLE], ["1"], "--set", "distill.augmented_per_row=0.5"),
            step("cascade", run),
            step("distillation", run, "--jobs", "2", "--seeds", "1", "--only", *SHORT),
            *(step(name, run, "--short", *SHORTER.get(name, ())) for name in SERVING),
        ]
    seeds = ["1", "2", "3"]
    has_kuairand = bool(os.environ.get("DYNENS_DATA_HOME"))
    data = [WHOLE, KUAIRAND] if has_kuairand else [WHOLE]
    run = run_of(WHOLE)
    plan = [
        accuracy([*data, "synthetic"], seeds),
        step("peer_accuracy", *(run_of(WHOLE, seed) for seed in seeds), "--jobs", "2"),
        step("cascade", *(run_of(name, seed) for seed in seeds for name in data)),
        step("routing", *(run_of(name, seed) for name in data for seed in seeds)),
        # Many students: of a quarter of the users, since each is trained three times.
        accuracy([SAMPLE], ["1"], name="accuracy-sample"),
        step("distillation", run_of(SAMPLE), "--seeds", *seeds, "--jobs", "2"),
        step("distillation-demo", run_of(SAMPLE), *WEIGHED, module="distillation"),
        step("out_of_fold", run_of(SAMPLE), "--seeds", *seeds, "--jobs", "2"),
        step("stacking", run_of(SAMPLE), "--seeds", *seeds),
        *(step(name, run) for name in SERVING),
        step("serving-2", run_of(WHOLE, "2"), module="serving"),
        step("faults", run),
        step("soak", run),
        step("training_speed"),
        step("epoch_scaling"),
    ]
    if has_kuairand:
        for study in soft_labels.STUDIES:
            plan.append(step(study, study, "--data", "kuairand-pure", module="soft_labels"))
        plan.append(accuracy([KUAIRAND], seeds, "--set", "refit=true", name="accuracy-refit"))
        plan.append(step("refit", *(run_of(f"refit/{KUAIRAND}", seed) for seed in seeds)))
        wide = run_of(KUAIRAND)
        plan.append(step("serving-kuairand", wide, module="serving"))
        for seed in seeds[1:]:
            another = run_of(KUAIRAND, seed)
            plan.append(step(f"serving-kuairand-{seed}", another, module="serving"))
        plan.append(step("load_curve-kuairand", wide, module="load_curve"))
    return plan


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--short", action="store_true")
    choice.add_argument("--full", action="store_true")
    parser.add_argument("--begin-with", metavar="NAME", help="leave out what comes before")
    arguments = parser.parse_args()
    plan = steps(arguments.short)
    names = [step.name for step in plan]
    if arguments.begin_with not in (None, *names):
        parser.error(f"--begin-with {arguments.begin_with}: there are {', '.join(names)}.")
    OUT.mkdir(parents=True, exist_ok=True)
    first = names.index(arguments.begin_with or names[0])
    failed = [step.name for step in plan[first:] if not run(step)]
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
