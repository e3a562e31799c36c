"""What the benchmarks share: the runs they are given, the JSON they write, tables of results."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dynens.errors import BadInputError, DynensError
from dynens.report.console import number, signed
from dynens.run import RunDirectory, environment, write_json


@contextmanager
def one_sentence() -> Iterator[None]:
    """End with exit code 2 and one sentence where the user's input, or the server, is at fault."""
    try:
        yield
    except (DynensError, FileNotFoundError) as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)


def with_held_out_rows(directory: Path) -> RunDirectory:
    """A run whose validation rows trained nothing, so that something can be chosen on them.

    Raises:
        BundleError: the directory is no run.
        BadInputError: its models were trained on them in a second pass.
    """
    run = RunDirectory.open(directory)
    if run.is_refitted:
        raise BadInputError(
            f"{directory} was trained on its validation rows, too, so nothing can be chosen on "
            f"them; give a run of `dynens fit --reuse {directory} --set refit=false`."
        )
    return run


def write_result(out: Path, result: Mapping[str, Any]) -> None:
    """The JSON file of a benchmark, with its command and machine; what is undefined is null."""
    write_json(out, {**result, "command": sys.argv, "machine": environment()})


def grouped(results: Iterable[Mapping[str, Any]], *keys: str) -> dict[Any, list[Mapping[str, Any]]]:
    """Results by what they have under a key, or the tuple of it under several, as first met."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for result in results:
        found = tuple(result.get(key) for key in keys)
        groups.setdefault(found if len(keys) > 1 else found[0], []).append(result)
    return groups


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def percent(value: float | None) -> str:
    """A share in percent, or a dash where it is undefined."""
    return "–" if value is None or math.isnan(value) else f"{value:.0%}"


def median_and_range(values: Sequence[float]) -> list[float]:
    """Median, smallest and largest."""
    return [statistics.median(values), min(values), max(values)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`median (smallest–largest)` of what `median_and_range` gives."""
    median, low, high = (number(value, digits) for value in values)
    return f"{median} ({low}–{high})"


def mean_and_spread(values: Sequence[float], sign: str = "", digits: int = 4) -> str:
    """Mean ± standard deviation (n − 1) over seeds; the value alone where there is one."""
    if not values:
        return "–"
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.{digits}f}{deviation}"


def difference(found: Mapping[str, float]) -> str:
    """A difference with its interval."""
    return f"{signed(found['value'])} [{signed(found['low'])}, {signed(found['high'])}]"
