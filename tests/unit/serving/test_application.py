"""The HTTP contract, request by request, without a server."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from dynens.batch import Candidates
from dynens.config.serving import LimitsConfig
from dynens.engine import Engine
from serving.application import Application
from serving.codecs import CODECS
from tests.asgi import call
from tests.unit.serving.bodies import INFER, RANK, ROWS, make, outputs, tensor

REPORT = {"hard_wanted", "hard_granted", "budget_ms", "elapsed_ms", "degraded", "bundle_version"}


def test_json_rows_are_scored_as_the_engine_scores_them(app: Application, engine: Engine) -> None:
    answer = call(app, "POST", INFER, ROWS)
    batch = engine.encoder.encode_columns(
        {
            "user_id": [5, 6, 7],
            "town": ["Oslo", "東京", None],
            "age": [31.0, None, 44.0],
            "hour": [3, 4, 5],
            "item_id": ["i1", "i2", "never seen"],
            "genres": [["drama"], ["horror", "comedy"], []],
            "price": [3.5, 2.5, 1.0],
            "brand": ["b1", "b2", "b3"],
        }
    )
    expected = engine.score(batch)
    np.testing.assert_allclose(outputs(answer)["probability"], expected.probability, atol=1e-6)
    assert outputs(answer)["route"] == expected.route.tolist()
    document = answer.json()
    assert document["model_name"] == "dynens"
    assert set(document["parameters"]) == REPORT
    assert document["parameters"]["budget_ms"] == 10_000
    assert document["parameters"]["degraded"] is None


def test_nested_data_and_column_shapes_mean_the_same(app: Application) -> None:
    nested = orjson.loads(orjson.dumps(ROWS))
    nested["inputs"][5]["data"] = [["drama", ""], ["horror", "comedy"], ["", ""]]
    nested["inputs"][0]["shape"] = [3, 1]
    nested["inputs"][0]["data"] = [[5], [6], [7]]
    assert outputs(call(app, "POST", INFER, nested)) == outputs(call(app, "POST", INFER, ROWS))


def test_a_list_may_come_as_one_text(app: Application) -> None:
    texts = tensor("genres", "BYTES", ["drama", "horror|comedy", ""])
    body = {"inputs": [t if t["name"] != "genres" else texts for t in ROWS["inputs"]]}
    assert outputs(call(app, "POST", INFER, body)) == outputs(call(app, "POST", INFER, ROWS))


def test_a_field_left_out_is_missing_and_named(app: Application) -> None:
    full = {**ROWS, "inputs": [t for t in ROWS["inputs"] if t["name"] != "town"]}
    empty = {**ROWS, "inputs": [*full["inputs"], tensor("town", "BYTES", ["", "", ""])]}
    answer = call(app, "POST", INFER, full)
    assert answer.json()["parameters"]["missing_fields"] == "town"
    assert outputs(answer) == outputs(call(app, "POST", INFER, empty))


def test_a_large_body_is_read_beside_the_event_loop(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop goes on meanwhile, and the answer is the same; so is what is wrong with it."""
    expected = outputs(call(app, "POST", INFER, ROWS))
    threads: list[bool] = []
    parse = type(CODECS[INFER]).parse

    def watched(*arguments: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return parse(*arguments)

    monkeypatch.setattr(type(CODECS[INFER]), "parse", watched)
    for limit in (1_000_000, 10):
        monkeypatch.setattr("serving.application._LARGE_BODY", limit)
        assert outputs(call(app, "POST", INFER, ROWS)) == expected
        assert call(app, "POST", INFER, b"{" * 100).status == 400
    assert threads == [True, True, False, False]


def test_nan_in_json_is_missing(app: Application) -> None:
    text = orjson.dumps(ROWS).replace(b"null", b"NaN")
    assert outputs(call(app, "POST", INFER, text)) == outputs(call(app, "POST", INFER, ROWS))


def test_the_id_comes_back_and_only_asked_outputs_are_sent(app: Application) -> None:
    answer = call(app, "POST", INFER, {**ROWS, "id": "42", "outputs": [{"name": "route"}]})
    assert answer.json()["id"] == "42"
    assert set(outputs(answer)) == {"route"}


def test_ranking_sorts_and_cuts(app: Application, engine: Engine) -> None:
    body = {"user_id": 5, "context": {"hour": 3}, "candidates": ["i1", "i2", "i3"], "top_k": 2}
    document = call(app, "POST", RANK, body).json()
    scores = engine.score(engine.encoder.encode_rank(5, {"hour": 3}, ["i1", "i2", "i3"]))
    order = np.argsort(-scores.probability)[:2]
    assert [i["item"] for i in document["items"]] == [["i1", "i2", "i3"][k] for k in order]
    np.testing.assert_allclose(
        [i["probability"] for i in document["items"]], scores.probability[order], atol=1e-6
    )
    assert [i["route"] for i in document["items"]] == scores.route[order].tolist()
    assert set(document) == REPORT | {"items"}


def test_ranking_says_what_no_table_and_no_context_tells(app: Application) -> None:
    body = {"user_id": 5, "context": {"hour": 3}, "candidates": ["i1"]}
    assert "missing_fields" not in call(app, "POST", RANK, body).json()
    del body["context"]
    assert call(app, "POST", RANK, body).json()["missing_fields"] == "hour"
    del body["user_id"]
    assert call(app, "POST", RANK, body).json()["missing_fields"] == "age,hour,town,user_id"


def test_ranking_says_which_keys_no_table_has(app: Application) -> None:
    context = {"hour": 3, "town": "Oslo"}
    body = {"user_id": 5, "context": context, "candidates": ["i1", "never seen", "i2", "nor this"]}
    answer = call(app, "POST", RANK, body).json()
    assert answer["unknown_items"] == 2
    assert "missing_fields" not in answer
    stranger = {"user_id": "never seen", "context": context, "candidates": ["i1"]}
    answer = call(app, "POST", RANK, stranger).json()
    assert answer["missing_fields"] == "age"
    assert "unknown_items" not in answer


def test_a_request_has_one_user(app: Application) -> None:
    body = {"user_id": 5, "candidates": ["i1"]}
    alike = {**body, "context": {"hour": 3, "user_id": "5"}}
    assert call(app, "POST", RANK, alike).status == 200
    refused = call(app, "POST", RANK, {**body, "context": {"hour": 3, "user_id": 6}})
    assert (refused.status, refused.json()["error"][:26]) == (400, "the request names two user")


def test_an_items_field_is_no_context(app: Application) -> None:
    body = {"user_id": 5, "context": {"price": 3}, "candidates": ["i1"]}
    message = call(app, "POST", RANK, body).json()["error"]
    start = "the context takes no field 'price'; it takes "
    assert message.startswith(start)
    assert set(message.removeprefix(start).split(", ")) == {"user_id", "town", "age", "hour"}


@pytest.mark.parametrize("keys", [["i1", "i2", "i3"], ["i1", "never seen", "i2"], ["i3", " i2"]])
def test_known_items_and_strangers_rank_alike(app: Application, engine: Engine, keys: Any) -> None:
    """Items of the table take a shorter way; one stranger sends its request the long way."""
    rows = engine.encode_rank(5, {"hour": 3}, keys)
    assert isinstance(rows, Candidates) is (keys == ["i1", "i2", "i3"])
    body = {"user_id": 5, "context": {"hour": 3}, "candidates": keys}
    found = {i["item"]: i["probability"] for i in call(app, "POST", RANK, body).json()["items"]}
    for key in keys:
        written = engine.encoder.encode_rank(5, {"hour": 3}, [key])
        assert found[key] == pytest.approx(float(engine.score(written).probability[0]), abs=1e-6)


def test_a_user_in_the_context_is_joined_too(app: Application) -> None:
    body = {"user_id": 5, "context": {"hour": 3}, "candidates": ["i1", "i2"]}
    expected = call(app, "POST", RANK, body).json()
    body = {"context": {"hour": 3, "user_id": 5}, "candidates": ["i1", "i2"]}
    answer = call(app, "POST", RANK, body).json()
    assert answer["items"] == expected["items"]
    assert "missing_fields" not in answer


@pytest.mark.parametrize("user", [{"user_id": None}, {}, {"user_id": "5"}, {"user_id": 5.0}])
def test_users_may_be_unknown_or_spelled_otherwise(app: Application, user: Any) -> None:
    answer = call(app, "POST", RANK, {**user, "candidates": ["i1"]})
    assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("GET", "/v2", 200),
        ("GET", "/v2/models/dynens", 200),
        ("GET", "/v2/models/dynens/", 200),
        ("GET", "/v2/models/dynens/ready", 200),
        ("GET", "/v2/models/other", 404),
        ("GET", "/", 404),
        ("GET", RANK, 405),
        ("DELETE", INFER, 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
    ],
)
def test_pages(app: Application, method: str, path: str, status: int) -> None:
    answer = call(app, method, path)
    assert answer.status == status
    if status >= 400:
        assert set(answer.json()) == {"error"}
    allowed = {"GET": "POST", "DELETE": "POST", "POST": "GET, HEAD"}[method]
    assert answer.headers.get("allow") == (allowed if status == 405 else None)


def test_metadata_lists_every_field(app: Application, engine: Engine) -> None:
    metadata = call(app, "GET", "/v2/models/dynens").json()
    assert metadata["versions"] == [engine.bundle.version]
    inputs = {t["name"]: t for t in metadata["inputs"]}
    assert set(inputs) == {f.name for f in engine.encoder.input_fields}
    assert inputs["genres"]["shape"] == [-1, -1]
    assert inputs["age"]["datatype"] == "FP64"


def test_the_version_that_answers_can_be_asked_for(app: Application, engine: Engine) -> None:
    version = f"/v2/models/dynens/versions/{engine.bundle.version}"
    assert call(app, "GET", version).json() == call(app, "GET", "/v2/models/dynens").json()
    assert call(app, "GET", f"{version}/ready").status == 200
    answer = call(app, "POST", f"{version}/infer", ROWS)
    assert outputs(answer) == outputs(call(app, "POST", INFER, ROWS))
    assert call(app, "POST", "/v2/models/dynens/versions/other/infer", ROWS).status == 404


def test_the_openapi_document_describes_both_scored_endpoints(app: Application) -> None:
    document = call(app, "GET", "/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert {INFER, RANK, "/metrics"} <= set(document["paths"])
    context = document["paths"][RANK]["post"]["requestBody"]["content"]["application/json"]
    assert set(context["schema"]["properties"]["context"]["properties"]) == {
        "user_id",
        "town",
        "age",
        "hour",
    }


@pytest.mark.parametrize("path", [INFER, RANK])
def test_the_openapi_document_names_every_status_that_is_given(engine: Engine, path: str) -> None:
    app = make(engine, limits=LimitsConfig(max_body_bytes=2000), token="s3cret")
    own = {"Authorization": "Bearer s3cret"}
    late = f"t={int((time.time() - 5) * 1e6)}"
    answers = [
        call(app, "POST", path),
        call(app, "POST", path, **own),
        call(app, "POST", f"{path}/other", **own),
        call(app, "GET", path, **own),
        call(app, "POST", path, b" " * 2001, **own),
        call(app, "POST", path, Content_Encoding="gzip", **own),
        call(app, "POST", path, **own, X_Request_Start=late, X_Latency_Budget_Ms="4000"),
    ]
    given = [answer.status for answer in answers]
    assert given == [401, 400, 404, 405, 413, 415, 504]
    document = call(app, "GET", "/openapi.json", **own).json()
    assert {"200", "500", "503", *map(str, given)} == set(
        document["paths"][path]["post"]["responses"]
    )


def test_look_up_tables_are_built_before_the_first_request(engine: Engine) -> None:
    """For texts and for integers: on a large vocabulary either takes longer than a budget."""
    vocabularies = [e.vocabulary for e in engine.encoder.encoders if hasattr(e, "vocabulary")]
    assert len(vocabularies) > 3
    assert all(v._by_text is not None and v._by_number is not None for v in vocabularies)


def test_limits_on_bodies_and_rows(engine: Engine) -> None:
    app = make(engine, limits=LimitsConfig(max_body_bytes=2000, max_rows=2))
    big = call(app, "POST", INFER, b" " * 2001)
    assert (big.status, "2000 bytes" in big.json()["error"]) == (413, True)
    assert call(app, "POST", INFER, ROWS).status == 413
    assert call(app, "POST", RANK, {"candidates": [1, 2, 3]}).status == 413
    packed = call(app, "POST", RANK, {"candidates": [1]}, Content_Encoding="gzip")
    assert packed.status == 415


def test_a_token_is_asked_for_everywhere_but_at_health(engine: Engine) -> None:
    app = make(engine, token="s3cret")
    body = {"candidates": ["i1"]}
    refused = call(app, "POST", RANK, body)
    assert (refused.status, refused.headers.get("www-authenticate")) == (401, "Bearer")
    assert call(app, "POST", RANK, body, Authorization="Bearer wrong").status == 401
    assert call(app, "POST", RANK, body, Authorization="Bearer s3cret").status == 200
    assert call(app, "POST", RANK, body, Authorization="bearer s3cret").status == 200
    assert call(app, "POST", RANK, body, Authorization="s3cret").status == 401
    assert call(app, "GET", "/metrics").status == 401
    assert call(app, "GET", "/v2/health/ready").status == 200
    assert call(app, "GET", "/v2/health/ready/").status == 200


def test_queue_time_counts_and_a_spent_budget_is_a_504(engine: Engine) -> None:
    app = make(engine)
    stamp = f"t={int((time.time() - 5) * 1e6)}"
    body = {"candidates": ["i1"]}
    late = call(app, "POST", RANK, body, X_Request_Start=stamp, X_Latency_Budget_Ms="4000")
    assert late.status == 504
    assert "budget" in late.json()["error"]
    in_time = call(app, "POST", RANK, body, X_Request_Start=stamp, X_Latency_Budget_Ms="60000")
    assert in_time.status == 200
    assert 5000 <= in_time.json()["elapsed_ms"] < 60000


def test_the_header_wins_over_the_parameter(app: Application) -> None:
    body = {"candidates": ["i1"], "latency_budget_ms": 7000}
    assert call(app, "POST", RANK, body).json()["budget_ms"] == 7000
    answer = call(app, "POST", RANK, body, X_Latency_Budget_Ms="9000")
    assert answer.json()["budget_ms"] == 9000


@pytest.mark.parametrize(
    ("body", "headers", "budget_s"),
    [
        ({}, {}, 10.0),
        ({"latency_budget_ms": 7000}, {}, 7.0),
        ({"latency_budget_ms": 7000}, {"X_Latency_Budget_Ms": "9000"}, 9.0),
        ({"context": {"town": "latency_budget_ms"}}, {}, 10.0),
    ],
)
def test_the_queue_hears_of_a_request_once_with_its_own_budget(
    app: Application, monkeypatch: pytest.MonkeyPatch, body: Any, headers: Any, budget_s: float
) -> None:
    heard: list[float] = []
    queue = app._gate.queue
    monkeypatch.setattr(queue, "observe", lambda wait_s, budget_s, _: heard.append(budget_s))
    assert call(app, "POST", RANK, {"candidates": ["i1"], **body}, **headers).status == 200
    assert heard == [budget_s]


def test_under_a_prefix_the_paths_are_the_same(engine: Engine) -> None:
    async def go() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/models/a/v2/health/ready",
            "root_path": "/models/a",
            "headers": [],
        }
        await make(engine)(scope, None, send)  # type: ignore[arg-type]
        return sent

    assert asyncio.run(go())[0]["status"] == 200


def test_internal_errors_leak_nothing(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(app._scheduler, "score", fail)
    answer = call(app, "POST", RANK, {"candidates": ["i1"]})
    assert answer.status == 500
    assert answer.json() == {"error": "internal error"}


@pytest.mark.parametrize(("system", "route"), [("student", 0), ("ensemble", 1)])
def test_static_systems_send_every_row_one_way(engine: Engine, system: str, route: int) -> None:
    app = make(engine, system=system)
    items = call(app, "POST", RANK, {"candidates": ["i1", "i2"]}).json()["items"]
    assert [i["route"] for i in items] == [route, route]


def test_another_bundle_answers_from_the_next_request_on(app: Application, engine: Engine) -> None:
    before = app.model
    app.replace(engine)
    assert app.model is not before
    assert call(app, "POST", RANK, {"candidates": ["i1"]}).status == 200


def test_an_answer_that_is_ready_too_late_is_not_sent(run: Path) -> None:
    """A pause of the whole process (garbage, another program) between scoring and sending."""
    clock = JumpingClock()
    app = make(Engine.load(run, clock=clock), latency_budget_ms=100)
    codec = CODECS[RANK]
    render = codec.render

    def slow_render(*args: Any) -> Any:
        clock.now += 0.2
        return render(*args)

    assert call(app, "POST", RANK, {"candidates": ["i1"]}).status == 200
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "render", slow_render)
        late = call(app, "POST", RANK, {"candidates": ["i1"]})
    assert late.status == 504
    assert app.metrics.refused == {"budget_spent": 1}


class JumpingClock:
    """A clock that stands still unless told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now
