"""One server with two replicas: protocol, parity, confinement, promises under load."""

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import math
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest

from dynens.data.prepared import open_prepared
from dynens.engine import Engine
from serving.loadtest import LoadOptions, run_loadtest
from serving.replay import infer_body
from tests.server_process import ServerProcess, get

INFER = "/v2/models/dynens/infer"
NO_LIMIT = {"x-latency-budget-ms": "60000"}


def post(
    server: ServerProcess, path: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("POST", path, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        found = {k.lower(): v for k, v in answer.getheaders()}
    finally:
        connection.close()
    return answer.status, json.loads(content) if content else None, found


@pytest.fixture(scope="module")
def rows(run: Path) -> pa.Table:
    """Raw test rows, with values nobody has seen before put among them."""
    raw = open_prepared(run / "data").raw_test().drop(["click"]).slice(0, 150)
    strange = {"user_id": [10**9, None], "town": ["Ærø 🎈", None], "item_id": ["new", "i1"]}
    odd = pa.table({n: pa.array(v, raw.schema.field(n).type) for n, v in strange.items()})
    return pa.concat_tables([raw, odd], promote_options="default")


@pytest.fixture(scope="module")
def expected(run: Path, rows: pa.Table) -> Any:
    """What evaluation and prediction compute: the encoder's table road and the engine."""
    engine = Engine.load(run)
    return engine.score(engine.encoder.encode_table(rows))


def test_json_gives_what_evaluation_computes(
    shared_server: ServerProcess, run: Path, rows: pa.Table, expected: Any
) -> None:
    encoder = open_prepared(run / "data").encoder
    for size in (1, 7, len(rows)):
        got: list[float] = []
        routes: list[int] = []
        for start in range(0, len(rows), size):
            body = infer_body(encoder, rows.slice(start, size))
            status, document, _ = post(shared_server, INFER, body, NO_LIMIT)
            assert status == 200, document
            tensors = {o["name"]: o["data"] for o in document["outputs"]}
            got += tensors["probability"]
            routes += tensors["route"]
        np.testing.assert_allclose(got, expected.probability, atol=1e-5)
        assert routes == expected.route.tolist()


def test_the_stock_triton_client_gets_the_same(
    shared_server: ServerProcess, rows: pa.Table, expected: Any
) -> None:
    import tritonclient.http as triton

    client = triton.InferenceServerClient(f"127.0.0.1:{shared_server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("dynens")
    assert client.get_model_metadata("dynens")["name"] == "dynens"
    inputs = []
    for name, datatype in (("user_id", "BYTES"), ("item_id", "BYTES"), ("town", "BYTES")):
        texts = ["" if v is None else str(v) for v in rows[name].to_pylist()]
        tensor = triton.InferInput(name, [len(texts)], datatype)
        tensor.set_data_from_numpy(np.array([t.encode() for t in texts], dtype=object))
        inputs.append(tensor)
    for name in ("age", "price"):
        numbers = np.array(
            [math.nan if v is None else v for v in rows[name].to_pylist()], np.float64
        )
        tensor = triton.InferInput(name, [len(numbers)], "FP64")
        tensor.set_data_from_numpy(numbers)
        inputs.append(tensor)
    for name in ("brand", "hour"):
        texts = ["" if v is None else str(v) for v in rows[name].to_pylist()]
        tensor = triton.InferInput(name, [len(texts), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[t.encode()] for t in texts], dtype=object))
        inputs.append(tensor)
    lists = [[] if v is None else v.split("|") for v in rows["genres"].to_pylist()]
    padded = [[g.encode() for g in (*row, *[""] * (3 - len(row)))] for row in lists]
    tensor = triton.InferInput("genres", [len(padded), 3], "BYTES")
    tensor.set_data_from_numpy(np.array(padded, dtype=object))
    inputs.append(tensor)
    result = client.infer("dynens", inputs, headers=NO_LIMIT, request_id="77")
    np.testing.assert_allclose(result.as_numpy("probability"), expected.probability, atol=1e-5)
    np.testing.assert_array_equal(result.as_numpy("route"), expected.route)
    assert result.get_response()["id"] == "77"
    assert "missing_fields" not in result.get_response()["parameters"]
    bad = triton.InferInput("nope", [1], "BYTES")
    bad.set_data_from_numpy(np.array([b"x"], dtype=object))
    with pytest.raises(triton.InferenceServerException, match="no field"):
        client.infer("dynens", [bad])


def test_ranking_joins_the_features_of_users_and_items(
    shared_server: ServerProcess, run: Path
) -> None:
    raw = open_prepared(run / "data").raw_test().slice(0, 20)
    engine = Engine.load(run)
    whole = engine.score(engine.encoder.encode_table(raw.drop(["click"]))).probability
    for row, expected in zip(raw.to_pylist(), whole.tolist(), strict=True):
        body = {
            "user_id": row["user_id"],
            "context": {"hour": row["hour"]},
            "candidates": [row["item_id"]],
        }
        status, document, _ = post(shared_server, "/v1/rank", json.dumps(body).encode(), NO_LIMIT)
        assert status == 200
        assert document["items"][0]["probability"] == pytest.approx(expected, abs=1e-5)


def test_a_client_cannot_set_its_own_arrival(shared_server: ServerProcess) -> None:
    body = b'{"candidates":["i1"]}'
    for stamp in ("t=1000000", f"t={int((time.time() + 100) * 1e6)}", "x"):
        headers = NO_LIMIT | {"x-request-start": stamp, "X-Request-Start": stamp}
        status, document, _ = post(shared_server, "/v1/rank", body, headers)
        assert status == 200, document
        assert 0 < document["elapsed_ms"] < 10_000


def test_queueing_on_an_idle_connection_is_not_counted(shared_server: ServerProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shared_server.port, timeout=30)
    for _ in range(2):
        connection.request("POST", "/v1/rank", b'{"candidates":["i1"]}', NO_LIMIT)
        elapsed_ms = json.loads(connection.getresponse().read())["elapsed_ms"]
        time.sleep(1.5)
    connection.close()
    assert elapsed_ms < 1400


def test_an_impossible_budget_is_a_504(shared_server: ServerProcess) -> None:
    headers = {"x-latency-budget-ms": "0.001"}
    status, document, _ = post(shared_server, "/v1/rank", b'{"candidates":["i1"]}', headers)
    assert status in (503, 504)
    assert set(document) == {"error"}


def test_http_listens_on_loopback_only(shared_server: ServerProcess) -> None:
    listening = []
    for process in shared_server.descendants():
        name = process.name() + " ".join(process.cmdline())
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN and (
                "haproxy" in name or connection.laddr.port in range(30000, 31001)
            ):
                listening.append(connection.laddr.ip)
    assert len(listening) >= 3  # HAProxy and two replicas
    assert set(listening) == {"127.0.0.1"}


def test_replicas_stay_small(shared_server: ServerProcess) -> None:
    sizes = [p.memory_info().rss / 2**20 for p in shared_server.replicas()]
    assert len(sizes) == 2
    assert max(sizes) < 600


def test_metrics_speak_for_all_replicas(shared_server: ServerProcess) -> None:
    for _ in range(20):
        post(shared_server, "/v1/rank", b'{"candidates":["i1","nope"]}', NO_LIMIT)
    time.sleep(1.5)  # replicas publish once a second
    text = get(f"{shared_server.url}/metrics").decode()
    requests = re.search(r'dynens_requests_total\{status="200"\} (\d+)', text)
    assert requests is not None
    assert int(requests[1]) >= 20
    versions = re.findall(r'dynens_replicas\{bundle="(\w+)"\} (\d+)', text)
    assert [int(count) for _, count in versions] == [2]
    for name in (
        'dynens_rows_total{route="ensemble"}',
        "dynens_hard_rows_wanted_total",
        "dynens_hard_rows_granted_total",
        'dynens_latency_ms_bucket{le="0.1",route="student"}',
        'dynens_latency_ms_bucket{le="50.0",route="ensemble"}',
        'dynens_queue_ms_bucket{le="+Inf"}',
        "dynens_score_sum_total",
        'dynens_oov_values_total{field="item_id"}',
    ):
        assert name in text


def test_load_is_replayed_and_counted(shared_server: ServerProcess, run: Path) -> None:
    options = LoadOptions(headers=NO_LIMIT, bodies=50)
    result = run_loadtest(shared_server.url, run, 40, 2, 20, options=options)
    assert result.requests + result.not_sent == pytest.approx(80, abs=2)
    assert result.errors == {}
    assert 0 < result.p50_ms <= result.p95_ms <= result.p99_ms <= result.p999_ms
    assert 0.05 < result.hard_share < 0.6
    assert 0 < result.hard_granted <= result.hard_wanted


def test_overload_sheds_in_words_and_answers_in_time(
    shared_server: ServerProcess, run: Path
) -> None:
    """Far beyond the peak, beside a program that eats a core: no silent lateness, health lives."""
    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with concurrent.futures.ThreadPoolExecutor(9) as pool:
            tight = {"x-latency-budget-ms": "20"}
            load = [pool.submit(_hammer, shared_server, tight, 3.0) for _ in range(8)]
            health = []
            while not all(f.done() for f in load):
                start = time.monotonic()
                assert get(f"{shared_server.url}/v2/health/live")
                health.append(time.monotonic() - start)
                time.sleep(0.05)
        answers = [answer for f in load for answer in f.result()]
    finally:
        hog.kill()
        hog.wait()
    assert len(answers) > 50
    assert {status for status, *_ in answers} <= {200, 503, 504}
    for status, document, headers in answers:
        if status == 200:
            assert document["elapsed_ms"] <= document["budget_ms"]
        else:
            assert set(document) == {"error"}
        assert status != 503 or headers["retry-after"]
    assert max(health) < 5.0
    status, document, _ = post(shared_server, "/v1/rank", b'{"candidates":["i1"]}', NO_LIMIT)
    assert (status, document["degraded"]) == (200, None)  # recovered at once


def _hammer(server: ServerProcess, headers: dict[str, str], seconds: float) -> list[Any]:
    body = json.dumps({"user_id": 3, "candidates": [f"i{n}" for n in range(300)]}).encode()
    answers, stop = [], time.monotonic() + seconds
    while time.monotonic() < stop:
        answers.append(post(server, "/v1/rank", body, headers))
    return answers


def test_a_client_that_leaves_is_noticed(shared_server: ServerProcess) -> None:
    candidates = [f"i{n % 400}" for n in range(10_000)]
    body = json.dumps({"user_id": 3, "candidates": candidates}).encode()
    head = (
        f"POST /v1/rank HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        "x-latency-budget-ms: 60000\r\n\r\n"
    )
    before = _metric(shared_server, "dynens_disconnected_total")
    give_up = time.monotonic() + 120
    delays = itertools.cycle((0.0, 0.005, 0.01, 0.02, 0.05, 0.1))  # fast machines and busy ones
    while _metric(shared_server, "dynens_disconnected_total") == before:
        assert time.monotonic() < give_up
        with contextlib.ExitStack() as clients:  # so many that some wait when all of them leave
            for _ in range(12):
                address = ("127.0.0.1", shared_server.port)
                client = clients.enter_context(socket.create_connection(address))
                client.sendall(head.encode() + body)
            time.sleep(next(delays))
    while _metric(shared_server, "dynens_in_flight") > 0:
        assert time.monotonic() < give_up
        time.sleep(0.3)


def _metric(server: ServerProcess, name: str) -> float:
    for line in get(f"{server.url}/metrics").decode().splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise AssertionError(f"no metric {name}")
