"""The binary tensor extension, and everything a client can get wrong."""

import struct
from typing import Any

import numpy as np
import orjson
import pytest

from dynens.config.serving import LimitsConfig
from serving.application import Application
from serving.errors import RequestError
from serving.rank import parse_rank
from serving.tensors import (
    INTEGER_TYPES,
    MAX_WIDTH,
    Field,
    column_from_bytes,
    column_from_json,
    tensor_spec,
)
from tests.asgi import call
from tests.unit.serving.bodies import (
    BINARY,
    INFER,
    RANK,
    ROWS,
    binary_request,
    outputs,
    pack_texts,
    tensor,
)


def test_binary_tensors_mean_what_json_means(app: Application) -> None:
    body, length = binary_request(BINARY)
    answer = call(app, "POST", INFER, body, Inference_Header_Content_Length=length)
    assert outputs(answer) == outputs(call(app, "POST", INFER, ROWS))


def test_binary_outputs_follow_the_json(app: Application) -> None:
    body, length = binary_request(BINARY, parameters={"binary_data_output": True})
    answer = call(app, "POST", INFER, body, Inference_Header_Content_Length=length)
    assert answer.status == 200, answer.body
    split = int(answer.headers["Inference-Header-Content-Length"])
    document = orjson.loads(answer.body[:split])
    assert [o["parameters"]["binary_data_size"] for o in document["outputs"]] == [12, 12]
    expected = outputs(call(app, "POST", INFER, ROWS))
    probability = struct.unpack("<3f", answer.body[split : split + 12])
    np.testing.assert_allclose(probability, expected["probability"], rtol=1e-6)
    assert list(struct.unpack("<3i", answer.body[split + 12 :])) == expected["route"]


def break_rows(**change: Any) -> dict[str, Any]:
    first = {**ROWS["inputs"][0], **change}
    return {"inputs": [{k: v for k, v in first.items() if v is not ...}, *ROWS["inputs"][1:]]}


def wide_genres(width: int, rows: int = 1) -> dict[str, Any]:
    """Refused for its shape, so that the values need not be there."""
    return {"inputs": [{**tensor("genres", "BYTES", []), "shape": [rows, width]}]}


def genre_texts(width: int, rows: int) -> dict[str, Any]:
    return {"inputs": [tensor("genres", "BYTES", ["|".join(["drama"] * width)] * rows)]}


def asked(**parameters: Any) -> dict[str, Any]:
    return {**ROWS, "outputs": [{"name": "probability", "parameters": parameters}]}


BAD_INFER: dict[str, tuple[Any, str]] = {
    "not json": (b"{", "not valid JSON"),
    "not utf-8": (b'{"inputs": "\xff"}', "not valid JSON"),
    "too deep": (b"[" * 5000, "not valid JSON"),
    "a list": ([], "must be a JSON object"),
    "no inputs": ({}, "no 'inputs'"),
    "inputs a string": ({"inputs": "x"}, "no 'inputs'"),
    "input a number": ({"inputs": [3]}, "with a 'name'"),
    "unknown field": (break_rows(name="nope"), "no field 'nope'"),
    "twice": ({"inputs": [*ROWS["inputs"], ROWS["inputs"][0]]}, "given twice"),
    "no datatype": (break_rows(datatype=...), "datatype None"),
    "wrong datatype": (break_rows(datatype="FP32"), "takes BOOL, BYTES, FP64"),
    "no shape": (break_rows(shape=...), "shape None"),
    "negative shape": (break_rows(shape=[-3]), "shape"),
    "wide shape": (break_rows(shape=[3, 2**62]), "L at most 1000"),
    "three axes": (break_rows(shape=[3, 1, 1]), "shape"),
    "bool shape": (break_rows(shape=[True]), "shape"),
    "no rows": ({"inputs": [tensor("user_id", "INT64", [])]}, "no rows"),
    "rows differ": (break_rows(shape=[2], data=[1, 2]), "rows"),
    "too few values": (break_rows(data=[1, 2]), "asks for 3"),
    "id a list": ({**ROWS, "id": [1]}, "'id'"),
    "id a truth value": ({**ROWS, "id": True}, "'id'"),
    "long lists": (wide_genres(MAX_WIDTH + 1), f"at most {MAX_WIDTH}"),
    "many values": (wide_genres(MAX_WIDTH, rows=501), "more than 500000 values"),
    "many values in texts": (genre_texts(300, rows=1700), "more than 500000 values"),
    "no data": (break_rows(data=...), "no 'data'"),
    "texts for integers": (break_rows(data=["a", "b", "c"]), "integers"),
    "lists for integers": (break_rows(data=[1, [2], 3]), "integers"),
    "ragged": ({"inputs": [tensor("genres", "BYTES", [["a"], ["b", "c"]], [2, 1])]}, "nested"),
    "flat list of integers": ({"inputs": [tensor("genres", "INT64", [1])]}, "takes [N, L]"),
    "text for number": ({"inputs": [tensor("age", "BYTES", ["old"])]}, "age"),
    "objects for texts": ({"inputs": [tensor("town", "BYTES", [{}])]}, "strings"),
    "long text": ({"inputs": [tensor("town", "BYTES", ["x" * 5000])]}, "longer than 4096"),
    "integer too large": (break_rows(datatype="INT8", data=[1, 128, 3]), "from -128 to 127"),
    "integer too small": (break_rows(datatype="UINT8", data=[1, None, -1]), "from 0 to 255"),
    "integer beyond 63 bits": (break_rows(data=[1, 2**63, 3]), "integers from -92233720368547758"),
    "list with a large integer": (
        {"inputs": [tensor("genres", "INT16", [1, 2**15], [1, 2])]},
        "from -32768 to 32767",
    ),
    "bad outputs": ({**ROWS, "outputs": [{"name": "x"}]}, "no output 'x'"),
    "binary a text": (asked(binary_data="false"), "'binary_data' must be true or false"),
    "all binary a number": (
        {**ROWS, "parameters": {"binary_data_output": 1}},
        "'binary_data_output' must be true or false",
    ),
    "classification": (asked(classification=1), "no classes"),
    "bad parameters": ({**ROWS, "parameters": 3}, "parameters"),
    "bad budget": ({**ROWS, "parameters": {"latency_budget_ms": "soon"}}, "latency budget"),
}


@pytest.mark.parametrize("case", BAD_INFER)
def test_bad_inference_requests_get_400_and_one_sentence(app: Application, case: str) -> None:
    body, words = BAD_INFER[case]
    answer = call(app, "POST", INFER, body)
    assert answer.status == 400, answer.body
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_texts_of_many_characters_may_hold_few_values(app: Application) -> None:
    assert call(app, "POST", INFER, genre_texts(100, rows=1700)).status == 200


# orjson reads 1024 levels; Python's own repr does not.
DEEP_BUDGET = b'{"candidates":[1],"latency_budget_ms":' + b"[" * 1010 + b"]" * 1010 + b"}"

BAD_RANK: dict[str, tuple[Any, str]] = {
    "a list": ([], "must be a JSON object"),
    "no candidates": ({"user_id": 1}, "'candidates'"),
    "empty candidates": ({"candidates": []}, "'candidates'"),
    "nested candidates": ({"candidates": [["a"]]}, "strings or numbers"),
    "true candidates": ({"candidates": [True]}, "strings or numbers"),
    "long candidate": ({"candidates": ["x" * 5000]}, "longer than"),
    "user a list": ({"user_id": [1], "candidates": [1]}, "'user_id'"),
    "unknown key": ({"candidates": [1], "colour": 1}, "'colour'"),
    "unknown context": ({"candidates": [1], "context": {"nope": 1}}, "'nope'"),
    "item field in context": ({"candidates": [1], "context": {"brand": 1}}, "'brand'"),
    "context a list": ({"candidates": [1], "context": [1]}, "'context'"),
    "context an object": ({"candidates": [1], "context": {"hour": {}}}, "'hour'"),
    "list for one value": ({"candidates": [1], "context": {"hour": [1, 2]}}, "one value, not a"),
    "list for a number": ({"candidates": [1], "context": {"age": [3]}}, "one value, not a"),
    "deep budget": (DEEP_BUDGET, "nested too deeply"),
    "text for number": ({"candidates": [1], "context": {"age": "old"}}, "age"),
    "top_k zero": ({"candidates": [1], "top_k": 0}, "'top_k'"),
    "top_k text": ({"candidates": [1], "top_k": "1"}, "'top_k'"),
    "budget": ({"candidates": [1], "latency_budget_ms": -1}, "latency budget"),
}


@pytest.mark.parametrize("case", BAD_RANK)
def test_bad_ranking_requests_get_400_and_one_sentence(app: Application, case: str) -> None:
    body, words = BAD_RANK[case]
    answer = call(app, "POST", RANK, body)
    assert answer.status == 400, answer.body
    assert words in answer.json()["error"]


BAD_BINARY: dict[str, tuple[Any, str, str]] = {
    "length a word": (BINARY, "ten", "Inference-Header"),
    "length too long": (BINARY, "99999", "Inference-Header"),
    "length negative": (BINARY, "-1", "Inference-Header"),
    "length short": (BINARY, "10", "not valid JSON"),
    "fixed too short": ([("age", "FP32", [3], b"12345678")], "", "take 12"),
    "text cut": ([("town", "BYTES", [1], b"\x09\x00\x00\x00abc")], "", "length-prefixed"),
    "text length huge": ([("town", "BYTES", [1], b"\xff\xff\xff\xffabc")], "", "length-prefixed"),
    "text left over": ([("town", "BYTES", [1], pack_texts(["a"]) + b"xx")], "", "length-prefixed"),
    "text missing": ([("town", "BYTES", [3], pack_texts(["a"]))], "", "length-prefixed"),
    "not utf-8": ([("town", "BYTES", [1], b"\x02\x00\x00\x00\xff\xfe")], "", "UTF-8"),
}


@pytest.mark.parametrize("case", BAD_BINARY)
def test_bad_binary_framing_gets_400(app: Application, case: str) -> None:
    tensors, length, words = BAD_BINARY[case]
    body, right = binary_request(tensors)
    answer = call(app, "POST", INFER, body, Inference_Header_Content_Length=length or right)
    assert answer.status == 400, answer.body
    assert words in answer.json()["error"]


def test_bytes_that_no_input_claims_are_refused(app: Application) -> None:
    body, length = binary_request(BINARY)
    answer = call(app, "POST", INFER, body + b"x", Inference_Header_Content_Length=length)
    assert answer.status == 400
    assert "belong to no input" in answer.json()["error"]


def test_an_input_that_claims_too_much_is_refused(app: Application) -> None:
    claim = {"name": "age", "datatype": "FP32", "shape": [1]}
    header = orjson.dumps({"inputs": [{**claim, "parameters": {"binary_data_size": 99}}]})
    answer = call(app, "POST", INFER, header, Inference_Header_Content_Length=str(len(header)))
    assert answer.status == 400
    assert "binary_data_size" in answer.json()["error"]


@pytest.mark.parametrize("candidate", [b'"\\ud800"', b'"\xed\xa0\x80"', b"99999999999999999999999"])
def test_python_style_nan_does_not_open_a_way_for_bad_values(
    app: Application, candidate: bytes
) -> None:
    body = b'{"candidates": [%s], "context": {"age": NaN}}' % candidate
    assert call(app, "POST", RANK, body).status == 400
    assert call(app, "POST", RANK, body.replace(candidate, b'"i1"')).status == 200


@pytest.mark.parametrize(
    ("datatype", "values", "packed"),
    [
        ("BOOL", [True, False], b"\x01\x00"),
        ("FP64", [0.5, 3.0], np.array([0.5, 3.0], "<f8").tobytes()),
        ("INT8", [-1, 5], b"\xff\x05"),
    ],
)
def test_categories_may_be_numbers_and_truth_values(
    datatype: str, values: list[object], packed: bytes
) -> None:
    spec = tensor_spec(Field("flag", "categorical"), datatype, [2])
    assert column_from_json(spec, values, 10) == values
    assert column_from_bytes(spec, memoryview(packed), 10) == values
    with pytest.raises(RequestError, match="must hold"):
        column_from_json(spec, ["x", "y"], 10)


@pytest.mark.parametrize("datatype", INTEGER_TYPES)
def test_integers_reach_to_the_ends_of_their_datatype(datatype: str) -> None:
    spec = tensor_spec(Field("flag", "categorical"), datatype, [3])
    limits = np.iinfo(INTEGER_TYPES[datatype])
    ends = [int(limits.min), None, int(limits.max)]
    assert column_from_json(spec, ends, 10) == ends
    for beyond in (limits.min - 1, limits.max + 1):
        with pytest.raises(RequestError, match=f"from {limits.min} to {limits.max}"):
            column_from_json(spec, [0, 0, beyond], 10)


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_vectors_may_be_texts_as_files_have_them(shape: list[int]) -> None:
    spec = tensor_spec(Field("place", "dense_vector"), "BYTES", shape)
    texts = ["52.6081,7.9039", ""]
    assert column_from_json(spec, texts, 20) == texts
    assert column_from_bytes(spec, memoryview(pack_texts(texts)), 20) == texts
    with pytest.raises(RequestError, match="longer than 10"):
        column_from_json(spec, texts, 10)
    with pytest.raises(RequestError, match=r"\[N\] or \[N, 1\]"):
        tensor_spec(spec.field, "BYTES", [2, 2])
    with pytest.raises(RequestError, match=r"takes \[N, L\]"):
        tensor_spec(spec.field, "FP32", [2])


def test_vectors_of_a_context_may_be_texts() -> None:
    fields, limits = {"place": Field("place", "dense_vector")}, LimitsConfig(max_string_chars=20)

    def parsed(place: object) -> object:
        body = orjson.dumps({"candidates": ["i1"], "context": {"place": place}})
        return parse_rank(body, None, fields, limits).context["place"]

    for place in ("52.6081,7.9039", [52.6081, 7.9039], None):
        assert parsed(place) == place
    for place in (5, ["a"], "5" * 21):
        with pytest.raises(RequestError):
            parsed(place)
