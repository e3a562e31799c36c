"""Open-loop load tests with k6, and the search for a server's peak rate."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dynens.data.prepared import PreparedData
from dynens.errors import BadInputError, ServingError
from serving.replay import open_run_data, request_bodies

_SCRIPT = Path(__file__).with_name("loadtest.js")
_BODIES = 1000
_MOST_ROWS = 500_000  # of all bodies together
# Of k6's virtual users, of which there are at least 20.
_BODIES_PER_USER = 25
_MOST_QPS = 1_000_000
_LONGEST_S = 7 * 24 * 3600
# Grace for k6 to start, to let the last requests finish and to write its summary.
_EXTRA_S = 60.0
# k6's garbage collection takes both cores of a small machine for milliseconds, which then pass for
# the server's: seldom, then, and not all the time because a limit is near. A variable that is set
# already stays: GOGC=100 in front of `dynens loadtest` shows the difference.
_K6_MEMORY = {"GOGC": "1000", "GOMEMLIMIT": "2GiB"}
MAX_ERROR_RATE = 0.001
MIN_GRANTED_SHARE = 0.99
# Of a trial: so many that a single refusal is no broken promise, within this time.
TRIAL_REQUESTS = round(1 / MAX_ERROR_RATE)
_LONGEST_TRIAL_S = 100.0


@dataclass(frozen=True)
class LoadResult:
    """What the client saw.

    Attributes:
        offered_qps: rate asked for.
        achieved_qps: complete answers (status 200) per second.
        requests: requests sent.
        not_sent: requests that found every connection busy; they count as errors.
        errors: number of answers by status other than 200 (0: no answer).
        p50_ms: of all answers, from sending to the last byte; likewise the others.
        hard_wanted: rows that the router wanted to send to the ensemble.
        hard_granted: rows that the ensemble answered.
        degraded: answers with fewer hard rows than wanted.
        late: complete answers that the client had only after the budget they name: sent in time,
            but slow in sockets or in the client.
        rows_per_request: rows of each request.
        duration_s: how long requests were sent.
    """

    offered_qps: float
    achieved_qps: float
    requests: int
    not_sent: int
    errors: dict[str, int]
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    hard_wanted: int
    hard_granted: int
    degraded: int
    late: int
    rows_per_request: int
    duration_s: float

    @property
    def error_rate(self) -> float:
        """Share of requests without a complete answer."""
        total = self.requests + self.not_sent
        return (sum(self.errors.values()) + self.not_sent) / total if total else 1.0

    @property
    def granted_share(self) -> float:
        """Hard rows answered by the ensemble over hard rows; 1 where there were none."""
        return self.hard_granted / self.hard_wanted if self.hard_wanted else 1.0

    @property
    def hard_share(self) -> float:
        """Hard rows over all rows answered."""
        rows = self.achieved_qps * self.duration_s * self.rows_per_request
        return self.hard_wanted / rows if rows else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All fields and derived shares, as JSON values."""
        shares = {
            "error_rate": self.error_rate,
            "granted_share": self.granted_share,
            "hard_share": self.hard_share,
        }
        return asdict(self) | shares


@dataclass(frozen=True)
class LoadOptions:
    """Details of a load test.

    Attributes:
        headers: sent with every request, beside the content type.
        connections: most requests under way at a time; None: enough for answers within 50 ms.
        bodies: number of distinct requests.
        seed: of their draw.
        read_answers: look into the answers (off for the no-op application).
        warm_up_s: seconds of the same load before the measured ones; only requests that found every
            connection busy count from there. The client itself is slow in its first moments.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    connections: int | None = None
    bodies: int = _BODIES
    seed: int = 0
    read_answers: bool = True
    warm_up_s: float = 1.0


DEFAULTS = LoadOptions()


def run_loadtest(
    url: str,
    run: Path,
    rate_qps: float,
    duration_s: float,
    rows_per_request: int = 100,
    *,
    options: LoadOptions = DEFAULTS,
) -> LoadResult:
    """Replay users and candidates of a run's test split at a constant rate.

    Args:
        url: base address of the server, as `http://host:port`.
        run: run directory that holds the prepared data.
        rate_qps: requests per second.
        duration_s: seconds.
        rows_per_request: candidates of each request.
        options: details.

    Raises:
        BadInputError: a bad rate, duration or run directory.
        ServingError: k6 is missing or failed.
    """
    prepared = open_run_data(run)
    path, bodies = _bodies(prepared, rows_per_request, options)
    return send_load(
        url.rstrip("/") + path, bodies, rate_qps, duration_s, rows_per_request, options
    )


def _bodies(
    prepared: PreparedData, rows_per_request: int, options: LoadOptions
) -> tuple[str, list[bytes]]:
    """The load's path and bodies; of large ones fewer, for all are made before it begins."""
    count = min(options.bodies, max(_MOST_ROWS // rows_per_request, _BODIES_PER_USER))
    return request_bodies(prepared, rows_per_request, count, options.seed)


def send_load(
    url: str,
    bodies: list[bytes],
    rate_qps: float,
    duration_s: float,
    rows_per_request: int,
    options: LoadOptions = DEFAULTS,
) -> LoadResult:
    """Post ready bodies to one address at a constant rate; see `run_loadtest`."""
    if not 0 < rate_qps <= _MOST_QPS or not 0 < duration_s <= _LONGEST_S:
        raise BadInputError(
            f"{rate_qps:g} requests per second for {duration_s:g} s are no load that can be sent; "
            f"give a rate of at most {_MOST_QPS:,} and a duration of at most {_LONGEST_S:,} s, "
            "both above zero."
        )
    with tempfile.TemporaryDirectory(prefix="k6-dynens-") as folder:
        directory = Path(folder)
        texts = [body.decode() for body in bodies]
        (directory / "bodies.json").write_text(json.dumps(texts), encoding="utf-8")
        rate, unit = _k6_rate(rate_qps)
        config = {
            "url": url,
            "bodies": str(directory / "bodies.json"),
            "summary": str(directory / "summary.json"),
            "rate": rate,
            "time_unit": unit,
            "warm_up_s": options.warm_up_s,
            "duration_s": duration_s,
            "bodies_per_user": _BODIES_PER_USER,
            "connections": options.connections or max(20, int(rate_qps * 0.05)),
            "read_answers": options.read_answers,
        }
        (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
        headers = {"Content-Type": "application/json", **options.headers}
        _run_k6(directory / "config.json", headers, options.warm_up_s + duration_s)
        metrics = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    return _result(metrics, rate_qps, duration_s, rows_per_request)


def k6_binary() -> str:
    """The k6 of this environment.

    Raises:
        ServingError: it is not installed.
    """
    beside = Path(sys.executable).with_name("k6")
    found = str(beside) if beside.is_file() else shutil.which("k6")
    if found is None:
        raise ServingError("k6 is not installed; install dynens with its 'serve' extra.")
    return found


def _k6_rate(rate_qps: float) -> tuple[int, str]:
    """k6 takes whole numbers: per second where that is exact enough, else per minute."""
    if rate_qps >= 100 or rate_qps == int(rate_qps):
        return max(round(rate_qps), 1), "1s"
    return max(round(rate_qps * 60), 1), "1m"


def _run_k6(config: Path, headers: Mapping[str, str], duration_s: float) -> None:
    """Run it; headers, of which one may be a token, go through no file."""
    command = [k6_binary(), "run", "--quiet", "--no-usage-report", "--log-output=stderr"]
    command += ["--address", "", str(_SCRIPT)]
    environment = (
        _K6_MEMORY
        | os.environ
        | {
            "DYNENS_LOAD": str(config),
            "DYNENS_LOAD_HEADERS": json.dumps(dict(headers)),
        }
    )
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=duration_s + _EXTRA_S,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise ServingError(f"k6 did not finish within {duration_s + _EXTRA_S:.0f} s.") from e
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ServingError(f"k6 failed: {lines[-1] if lines else 'no message'}")


def _result(
    metrics: Mapping[str, Any], rate_qps: float, duration_s: float, rows_per_request: int
) -> LoadResult:
    def count(name: str) -> int:
        return int(metrics.get(name, {}).get("values", {}).get("count", 0))

    times = metrics.get("duration", {}).get("values", {})

    def time_ms(name: str) -> float:
        return float(times.get(name, 0.0))

    statuses = {
        name.removeprefix("status_"): count(name) for name in metrics if name.startswith("status_")
    }
    complete = statuses.pop("200", 0)
    return LoadResult(
        offered_qps=rate_qps,
        achieved_qps=complete / duration_s,
        requests=complete + sum(statuses.values()),
        not_sent=count("dropped_iterations"),
        errors={status: n for status, n in sorted(statuses.items()) if n},
        mean_ms=time_ms("avg"),
        p50_ms=time_ms("med"),
        p95_ms=time_ms("p(95)"),
        p99_ms=time_ms("p(99)"),
        p999_ms=time_ms("p(99.9)"),
        max_ms=time_ms("max"),
        hard_wanted=count("hard_wanted"),
        hard_granted=count("hard_granted"),
        degraded=count("degraded"),
        late=count("late"),
        rows_per_request=rows_per_request,
        duration_s=duration_s,
    )


def keeps_promise(result: LoadResult, budget_ms: float, *, elastic: bool = False) -> bool:
    """Whether a rate counts as served.

    p99 ≤ budget, errors ≤ 0.1 %, and (unless elastic) at least 99 % of the hard rows answered by
    the ensemble.
    """
    return (
        result.p99_ms <= budget_ms
        and result.error_rate <= MAX_ERROR_RATE
        and (elastic or result.granted_share >= MIN_GRANTED_SHARE)
    )


def trial_seconds(rate_qps: float, least_s: float) -> float:
    """Seconds of a trial at a rate: `least_s`, or more for `TRIAL_REQUESTS` requests, up to 100."""
    return max(least_s, min(TRIAL_REQUESTS / rate_qps, _LONGEST_TRIAL_S))


PeakSearch = Generator[float, bool, float]


def peak_search(start_qps: float, *, precision: float = 0.05) -> PeakSearch:
    """Search the highest rate that is served: yields rates to try, is sent whether they were.

    The rate doubles (or halves) until accepted and refused rates enclose the peak, which is then
    halved geometrically. A refused rate gets a second chance, because one hiccup on a busy machine
    must not pass for the peak. As a generator, so that searches of several servers can take turns.

    Args:
        start_qps: first rate tried.
        precision: ratio of refused to accepted rate − 1 at which to stop.

    Returns:
        The highest accepted rate, 0 when even start / 64 is refused.
    """
    low, high = 0.0, start_qps
    while (yield high) or (yield high):
        low, high = high, high * 2
    if low == 0.0:
        low = high / 2
        while not ((yield low) or (yield low)):
            low, high = low / 2, low
            if low < start_qps / 64:
                return 0.0
    while high / low > 1 + precision:
        middle = (low * high) ** 0.5
        if (yield middle) or (yield middle):
            low = middle
        else:
            high = middle
    return low


def find_peak(trial: Callable[[float], bool], start_qps: float) -> float:
    """The highest rate in requests per second that `trial` accepts; see `peak_search`."""
    search = peak_search(start_qps)
    rate = next(search)
    while True:
        try:
            rate = search.send(trial(rate))
        except StopIteration as stop:
            peak: float = stop.value
            return peak


def find_server_peak(
    url: str,
    run: Path,
    budget_ms: float,
    rows_per_request: int = 100,
    *,
    start_qps: float = 100.0,
    trial_s: float = 10.0,
    on_trial: Callable[[LoadResult, bool], None] | None = None,
    options: LoadOptions = DEFAULTS,
) -> tuple[float, list[LoadResult]]:
    """The highest rate at which a server keeps its promise (`keeps_promise`), and all trials.

    Args:
        url: base address of the server.
        run: run directory that holds the prepared data.
        budget_ms: what p99 at the client must stay within.
        rows_per_request: candidates of each request.
        start_qps: first rate tried.
        trial_s: seconds of each trial, more where the rate is low (`trial_seconds`).
        on_trial: told about each trial, for progress.
        options: details of each trial.
    """
    prepared = open_run_data(run)
    path, bodies = _bodies(prepared, rows_per_request, options)
    results: list[LoadResult] = []

    def trial(rate: float) -> bool:
        seconds = trial_seconds(rate, trial_s)
        address = url.rstrip("/") + path
        result = send_load(address, bodies, rate, seconds, rows_per_request, options)
        results.append(result)
        kept = keeps_promise(result, budget_ms)
        if on_trial is not None:
            on_trial(result, kept)
        return kept

    return find_peak(trial, start_qps), results
