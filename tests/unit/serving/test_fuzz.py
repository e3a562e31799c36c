"""Whatever bytes arrive: an answer or a 4xx with a sentence, never a 500."""

from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.application import Application
from tests.asgi import Answer, call
from tests.unit.serving.bodies import BINARY, INFER, RANK, ROWS, binary_request

FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
NAMES = [t["name"] for t in ROWS["inputs"]]
DATATYPES = ["BYTES", "BOOL", "INT8", "INT32", "INT64", "UINT64", "FP16", "FP32", "FP64", "x"]

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=12),
)
anything = st.recursive(
    values, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner)
)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(NAMES) | anything,
        "datatype": st.sampled_from(DATATYPES) | anything,
        "shape": st.lists(st.integers(-1, 5), max_size=3) | anything,
        "data": st.lists(values, max_size=6) | anything,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": anything}) | anything,
    },
)
infers = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=4) | anything},
    optional={"id": anything, "outputs": anything, "parameters": anything},
)
ranks = st.fixed_dictionaries(
    {},
    optional={
        "user_id": anything,
        "candidates": st.lists(values, max_size=5) | anything,
        "context": st.dictionaries(st.sampled_from(["hour", "age", "town", "x"]), anything),
        "top_k": anything,
        "latency_budget_ms": anything,
    },
)


def well_behaved(answer: Answer) -> None:
    if answer.status == 200:
        return
    assert 400 <= answer.status < 500 or answer.status == 504, answer
    message = answer.json()["error"]
    assert set(answer.json()) == {"error"}
    assert "\n" not in message
    assert "Traceback" not in message


def dumps(document: Any) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS, default=str)


@FUZZ
@given(body=infers)
def test_any_inference_document(app: Application, body: Any) -> None:
    well_behaved(call(app, "POST", INFER, dumps(body)))


@FUZZ
@given(body=ranks)
def test_any_ranking_document(app: Application, body: Any) -> None:
    well_behaved(call(app, "POST", RANK, dumps(body)))


@FUZZ
@given(
    name=st.sampled_from(["hour", "age", "town", "user_id"]),
    value=anything | st.lists(values, max_size=3),
)
def test_any_value_in_the_context(app: Application, name: str, value: Any) -> None:
    well_behaved(call(app, "POST", RANK, dumps({"candidates": ["i1"], "context": {name: value}})))


@FUZZ
@given(body=st.binary(max_size=200), length=st.none() | st.text("0123456789-x", max_size=4))
def test_any_bytes(app: Application, body: bytes, length: str | None) -> None:
    headers = {} if length is None else {"Inference_Header_Content_Length": length}
    well_behaved(call(app, "POST", INFER, body, **headers))
    well_behaved(call(app, "POST", RANK, body))


@FUZZ
@given(
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 40),
    grow=st.binary(max_size=8),
    skew=st.integers(-3, 3),
)
def test_a_damaged_binary_request(
    app: Application, flips: list[tuple[int, int]], cut: int, grow: bytes, skew: int
) -> None:
    body, length = binary_request(BINARY)
    damaged = bytearray(body)
    for place, value in flips:
        damaged[place % len(damaged)] = value
    data = bytes(damaged[: len(damaged) - cut]) + grow
    header = str(int(length) + skew)
    well_behaved(call(app, "POST", INFER, data, Inference_Header_Content_Length=header))


@FUZZ
@given(
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=2),
    datatype=st.sampled_from(DATATYPES),
    name=st.sampled_from(NAMES),
    data=st.binary(max_size=64),
)
def test_any_binary_tensor(
    app: Application, shape: list[int], datatype: str, name: str, data: bytes
) -> None:
    body, length = binary_request([(name, datatype, shape, data)])
    well_behaved(call(app, "POST", INFER, body, Inference_Header_Content_Length=length))
