"""What load tests send, and what they make of the answers."""

import socket
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import orjson
import pyarrow as pa
import pytest

from dynens.errors import BadInputError
from serving.loadcheck import bearer_header, check_server
from serving.loadtest import (
    LoadOptions,
    LoadResult,
    _k6_rate,
    _result,
    find_peak,
    keeps_promise,
    run_loadtest,
    send_load,
    trial_seconds,
)
from serving.replay import INFER_PATH, RANK_PATH, infer_body, open_run_data, request_bodies
from tests.answering import answering

GOOD = LoadResult(
    offered_qps=100,
    achieved_qps=100,
    requests=1000,
    not_sent=0,
    errors={},
    mean_ms=2,
    p50_ms=2,
    p95_ms=4,
    p99_ms=7.9,
    p999_ms=20,
    max_ms=30,
    hard_wanted=1000,
    hard_granted=990,
    degraded=3,
    late=0,
    rows_per_request=10,
    duration_s=10,
)


def test_shares_follow_from_the_counts() -> None:
    assert GOOD.error_rate == 0
    assert GOOD.granted_share == 0.99
    assert GOOD.hard_share == 0.1
    worse = replace(GOOD, errors={"503": 5, "504": 4}, not_sent=1)
    assert worse.error_rate == pytest.approx(10 / 1001)
    assert replace(GOOD, hard_wanted=0, hard_granted=0).granted_share == 1.0


@pytest.mark.parametrize(
    ("change", "kept", "elastic"),
    [
        ({}, True, True),
        ({"p99_ms": 8.1}, False, False),
        ({"errors": {"504": 1}}, True, True),
        ({"errors": {"504": 2}}, False, False),
        ({"not_sent": 2}, False, False),
        ({"hard_granted": 980}, False, True),
    ],
)
def test_the_promise(change: dict[str, object], kept: bool, elastic: bool) -> None:
    result = replace(GOOD, **change)  # type: ignore[arg-type]
    assert keeps_promise(result, 8.0) is kept
    assert keeps_promise(result, 8.0, elastic=True) is elastic


@pytest.mark.parametrize("peak", [3.0, 90.0, 100.0, 730.0, 5000.0])
def test_the_peak_is_found_to_five_percent(peak: float) -> None:
    tried: list[float] = []

    def trial(rate: float) -> bool:
        tried.append(rate)
        return rate <= peak

    found = find_peak(trial, 100.0)
    assert peak / 1.05 <= found <= peak
    assert len(tried) < 40


def test_one_hiccup_is_not_the_peak() -> None:
    failures = {200.0}

    def trial(rate: float) -> bool:
        if rate in failures:
            failures.discard(rate)
            return False
        return rate <= 500

    assert find_peak(trial, 100.0) > 470


def test_a_trial_is_long_enough_for_one_refusal_to_be_none_of_its_promise() -> None:
    assert [trial_seconds(rate, 4.0) for rate in (10, 100, 200, 500)] == [100.0, 10.0, 5.0, 4.0]
    sent = round(trial_seconds(100, 4.0) * 100)
    assert keeps_promise(replace(GOOD, requests=sent, errors={"504": 1}), 8.0)
    assert not keeps_promise(replace(GOOD, requests=sent, errors={"504": 2}), 8.0)


def test_nothing_served_is_no_peak() -> None:
    assert find_peak(lambda rate: False, 100.0) == 0.0


@pytest.mark.parametrize(
    ("rate", "k6"), [(200, (200, "1s")), (3, (3, "1s")), (2.5, (150, "1m")), (333.3, (333, "1s"))]
)
def test_rates_become_whole_numbers(rate: float, k6: tuple[int, str]) -> None:
    assert _k6_rate(rate) == k6


def test_k6s_summary_is_read() -> None:
    metrics = {
        "duration": {
            "values": {"avg": 1, "med": 2, "p(95)": 3, "p(99)": 4, "p(99.9)": 5, "max": 6}
        },
        "status_200": {"values": {"count": 95}},
        "status_504": {"values": {"count": 4}},
        "status_0": {"values": {"count": 0}},
        "dropped_iterations": {"values": {"count": 1}},
        "hard_wanted": {"values": {"count": 50}},
        "hard_granted": {"values": {"count": 40}},
    }
    result = _result(metrics, 10.0, 10.0, 1)
    assert (result.requests, result.not_sent, result.errors) == (99, 1, {"504": 4})
    assert (result.p50_ms, result.p999_ms, result.achieved_qps) == (2, 5, 9.5)
    assert result.granted_share == 0.8


@pytest.mark.parametrize(
    ("rate", "duration"),
    [(0, 1), (-5, 1), (5, 0), (float("nan"), 1), (float("inf"), 1), (5, float("inf"))],
)
def test_impossible_loads_are_refused(rate: float, duration: float) -> None:
    with pytest.raises(BadInputError, match="above zero"):
        send_load("http://127.0.0.1:1", [b"{}"], rate, duration, 1)


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no prepared data"):
        open_run_data(tmp_path)


def test_candidates_are_seeded_distinct_and_lead_with_positives(run: Path) -> None:
    prepared = open_run_data(run)
    path, bodies = request_bodies(prepared, 50, 20, seed=3)
    assert path == RANK_PATH
    assert bodies == request_bodies(prepared, 50, 20, seed=3)[1]
    assert bodies != request_bodies(prepared, 50, 20, seed=4)[1]
    raw = prepared.raw_test().to_pylist()
    liked = {(r["user_id"], r["item_id"]) for r in raw if r["click"] == 1}
    for body in bodies:
        document = orjson.loads(body)
        candidates = document["candidates"]
        assert len(candidates) == len(set(candidates)) == 50
        assert set(document["context"]) == {"hour"}
        own = {item for user, item in liked if user == document["user_id"]}
        assert own <= set(candidates)


def test_rows_without_an_item_are_no_candidates(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = open_run_data(run)
    raw = prepared.raw_test()
    at = raw.column_names.index("item_id")
    gaps = [None if i % 3 == 0 else v for i, v in enumerate(raw["item_id"].to_pylist())]
    with_gaps = raw.set_column(at, "item_id", pa.array(gaps))
    monkeypatch.setattr(prepared, "raw_test", lambda: with_gaps)
    _, bodies = request_bodies(prepared, 50, 20)
    assert all(None not in orjson.loads(body)["candidates"] for body in bodies)


def test_more_candidates_than_items_repeat(run: Path) -> None:
    _, bodies = request_bodies(open_run_data(run), 900, 1)
    assert len(orjson.loads(bodies[0])["candidates"]) == 900


def test_rows_become_named_tensors(run: Path) -> None:
    prepared = open_run_data(run)
    body = orjson.loads(infer_body(prepared.encoder, prepared.raw_test().slice(0, 5)))
    assert {t["name"] for t in body["inputs"]} == {f.name for f in prepared.encoder.input_fields}
    assert all(t["shape"][0] == 5 for t in body["inputs"])
    assert INFER_PATH.endswith("/infer")


def test_a_load_that_nobody_answers_is_refused(run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(BadInputError, match=r"nothing answers at http://127.0.0.1:\d+ \(.*refused"):
        check_server(f"http://127.0.0.1:{port}", run, 5)
    with pytest.raises(BadInputError, match="nothing answers at notaurl"):
        check_server("notaurl", run, 5)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (200, None),
        (503, None),
        (400, "give the address of a server of"),
        (401, "--bearer-token-env"),
        (413, "fewer --rows-per-request"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words_and_with_a_remedy(
    run: Path, status: int, remedy: str | None
) -> None:
    with answering(lambda _: status, b'{"error": "there is no field u"}') as url:
        if remedy is None:
            check_server(url, run, 5)
        else:
            says = rf"answers {status} \(there is no field u\); .*{remedy}"
            with pytest.raises(BadInputError, match=says):
                check_server(url, run, 5)


def test_a_server_that_asks_for_a_token_gets_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def status(request: BaseHTTPRequestHandler) -> int:
        return 200 if request.headers["authorization"] == "Bearer s3cret" else 401

    monkeypatch.setenv("SERVER_TOKEN", "s3cret")
    monkeypatch.setenv("NO_TOKEN", "")
    assert bearer_header(None) == {}
    with pytest.raises(BadInputError, match="'NO_TOKEN' is empty"):
        bearer_header("NO_TOKEN")
    with answering(status) as url:
        with pytest.raises(BadInputError, match="answers 401"):
            check_server(url, run, 5)
        options = LoadOptions(headers=bearer_header("SERVER_TOKEN"), bodies=5)
        check_server(url, run, 5, options.headers)
        result = run_loadtest(url, run, 20, 1, 5, options=options)
    assert result.errors == {}
    assert result.requests > 0
