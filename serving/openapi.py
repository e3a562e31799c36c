"""The OpenAPI document of a server, generated from its bundle."""

from __future__ import annotations

from typing import Any

from dynens.config.serving import ServingConfig
from serving.codecs import Model
from serving.v2 import MODEL_NAME, model_metadata

_ERRORS = {
    "400": "The request breaks a rule; the sentence says which.",
    "401": "The server asks for a bearer token.",
    "404": "There is no such page, or no item table to rank from.",
    "405": "The page takes another method; Allow says which.",
    "413": "The body or the number of rows is beyond the limit.",
    "415": "The body is compressed.",
    "500": "Internal error.",
    "503": "Shed under load; Retry-After says when to come back.",
    "504": "The latency budget was spent before an answer was ready.",
}
_REPORT = {
    "hard_wanted": {"type": "integer", "description": "Rows the router sent to the ensemble."},
    "hard_granted": {"type": "integer", "description": "Rows the ensemble answered."},
    "budget_ms": {"type": "number"},
    "elapsed_ms": {"type": "number", "description": "From arrival until the scores were ready."},
    "degraded": {"type": ["string", "null"], "enum": [None, "budget", "load"]},
    "bundle_version": {"type": "string"},
    "missing_fields": {"type": "string", "description": "Fields missing in every row, by commas."},
}
_BUDGET_PARAMETER = {
    "name": "x-latency-budget-ms",
    "in": "header",
    "required": False,
    "schema": {"type": "number", "exclusiveMinimum": 0},
}


def openapi_document(model: Model, config: ServingConfig) -> dict[str, Any]:
    """OpenAPI 3.1 for the endpoints that this model answers."""
    paths = {
        "/v2/health/live": {"get": _page("Whether the process answers.")},
        "/v2/health/ready": {"get": _page("Whether the model is warmed up.")},
        "/v2": {"get": _page("Server metadata.")},
        f"/v2/models/{MODEL_NAME}": {"get": _page("Names, datatypes and shapes of the tensors.")},
        f"/v2/models/{MODEL_NAME}/infer": {"post": _infer(model, config)},
        "/metrics": {"get": _page("Prometheus metrics.", "text/plain")},
    }
    if model.can_rank:
        paths["/v1/rank"] = {"post": _rank(model, config)}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "dynens", "version": model.dynens_version},
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {"error": {"type": "string"}},
                }
            }
        },
    }
    if config.bearer_token_env is not None:
        document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"bearer": []}]
    return document


def _page(summary: str, content_type: str = "application/json") -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": {content_type: {}}}},
    }


def _operation(summary: str, body: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "summary": summary,
        "parameters": [_BUDGET_PARAMETER],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": answer}}},
            **{code: {"description": text, "content": error} for code, text in _ERRORS.items()},
        },
    }


def _infer(model: Model, config: ServingConfig) -> dict[str, Any]:
    metadata = model_metadata(model.fields, model.version)
    names = [tensor["name"] for tensor in metadata["inputs"]]
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string", "enum": names},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
            "data": {"type": "array"},
            "parameters": {"type": "object"},
        },
    }
    body = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "number"]},
            "inputs": {"type": "array", "items": tensor, "minItems": 1},
            "outputs": {"type": "array"},
            "parameters": {
                "type": "object",
                "properties": {"latency_budget_ms": {"type": "number"}},
            },
        },
    }
    answer = {
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "outputs": {"type": "array"},
            "parameters": {"type": "object", "properties": _REPORT},
        },
    }
    return _operation(
        f"Score up to {config.limits.max_rows} rows (JSON, or the binary tensor extension).",
        body,
        answer,
    )


def _rank(model: Model, config: ServingConfig) -> dict[str, Any]:
    key = {"type": ["string", "number"]}
    body = {
        "type": "object",
        "required": ["candidates"],
        "properties": {
            **dict.fromkeys(("user_id", model.user_key or "user_id"), key),
            "context": {
                "type": "object",
                "properties": {name: {} for name in sorted(model.context_fields)},
                "additionalProperties": False,
            },
            "candidates": {
                "type": "array",
                "items": key,
                "minItems": 1,
                "maxItems": config.limits.max_rows,
            },
            "top_k": {"type": "integer", "minimum": 1},
            "latency_budget_ms": {"type": "number"},
        },
    }
    item = {
        "type": "object",
        "properties": {
            "item": key,
            "probability": {"type": "number"},
            "route": {"type": "integer", "enum": [0, 1]},
        },
    }
    answer = {
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": item},
            **_REPORT,
            "unknown_items": {
                "type": "integer",
                "description": "Candidates that the item table does not have, if any.",
            },
        },
    }
    return _operation("Rank candidates for a user, best first.", body, answer)
