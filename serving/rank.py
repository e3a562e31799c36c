"""`POST /v1/rank`: one user, many candidates, features joined inside the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from dynens.config.serving import LimitsConfig
from dynens.data.reading.values import canonical
from dynens.engine import Scores
from serving.errors import RequestError, bad_request
from serving.tensors import MAX_WIDTH, Field
from serving.v2 import loads

_MOST_NAMES = 20
_KEYS = frozenset({"user_id", "context", "candidates", "top_k", "latency_budget_ms"})


@dataclass(frozen=True)
class RankRequest:
    """A parsed request.

    Attributes:
        user: the user's key, or None.
        context: raw values shared by all candidates.
        candidates: item keys, at least one.
        top_k: how many items to answer with, best first; None: all.
        budget: `latency_budget_ms` as the client gave it, or None.
    """

    user: str | int | float | None
    context: dict[str, Any]
    candidates: list[str | int | float]
    top_k: int | None
    budget: object


def parse_rank(
    body: bytes, user_key: str | None, context_fields: Mapping[str, Field], limits: LimitsConfig
) -> RankRequest:
    """Read a ranking request.

    Args:
        body: the whole body.
        user_key: the schema's name of the user's key; accepted beside `user_id` and in the
            context.
        context_fields: raw inputs that the context may set.
        limits: what a request may ask for.

    Raises:
        RequestError: 400 (413 for too many candidates) naming what is wrong.
    """
    document = loads(body)
    if not isinstance(document, dict):
        raise bad_request("the body must be a JSON object with 'candidates'")
    unknown = document.keys() - _KEYS - {user_key}
    if unknown:
        name = min(map(str, unknown))[:60]
        raise bad_request(f"unknown key {name!r}; the body takes {', '.join(sorted(_KEYS))}")
    context = _context(document.get("context"), context_fields, limits)
    named = (document.get("user_id"), document.get(user_key), context.get(user_key or ""))
    return RankRequest(
        user=_user([user for user in named if user is not None], limits),
        context=context,
        candidates=_candidates(document.get("candidates"), limits),
        top_k=_top_k(document.get("top_k")),
        budget=document.get("latency_budget_ms"),
    )


def _user(given: list[object], limits: LimitsConfig) -> str | int | float | None:
    for user in given:
        if isinstance(user, bool) or not isinstance(user, (str, int, float)):
            raise bad_request("'user_id' must be a string or a number")
        _check_length("user_id", user, limits)
        if user != given[0] and canonical(user) != canonical(given[0]):
            raise bad_request("the request names two users; name one, in one place")
    return given[0] if given else None  # type: ignore[return-value]


def _shown(fields: Mapping[str, Field]) -> str:
    names = list(fields)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return (", ".join(names[:_MOST_NAMES]) or "none") + more


def _candidates(value: object, limits: LimitsConfig) -> list[str | int | float]:
    if not isinstance(value, list) or not value:
        raise bad_request("'candidates' must be a list of at least one item")
    if len(value) > limits.max_rows:
        raise RequestError(
            413,
            f"{len(value)} candidates are more than the {limits.max_rows} allowed in one request",
            reason="bad_request",
        )
    types = set(map(type, value))
    if not types <= {str, int, float}:
        raise bad_request("'candidates' must hold strings or numbers")
    texts = value if types == {str} else [v for v in value if isinstance(v, str)]
    if max(map(len, texts), default=0) > limits.max_string_chars:
        raise bad_request(f"a candidate is longer than {limits.max_string_chars} characters")
    return value


def _context(
    value: object, context_fields: Mapping[str, Field], limits: LimitsConfig
) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_request("'context' must be a JSON object")
    unknown = value.keys() - context_fields.keys()
    if unknown:
        raise bad_request(
            f"the context takes no field {min(unknown)[:60]!r}; it takes {_shown(context_fields)}"
        )
    for name, entry in value.items():
        _check_entry(context_fields[name], entry, limits)
    return value


_VALUE = (str, int, float, bool, type(None))
_NUMBER = (int, float, type(None))


def _check_entry(field: Field, entry: object, limits: LimitsConfig) -> None:
    """A value, a list of values or a list of numbers (or its text), as the field's kind asks."""
    if field.kind == "dense_vector" and isinstance(entry, str):
        _check_length(field.name, entry, limits)
        return
    if not isinstance(entry, list):
        if field.kind == "dense_vector" and entry is not None:
            raise bad_request(f"context field {field.name!r} must be a list of numbers")
        entry = [entry]
    elif field.kind not in ("multi_valued", "dense_vector"):
        raise bad_request(f"context field {field.name!r} must be one value, not a list")
    if len(entry) > MAX_WIDTH:
        raise bad_request(
            f"context field {field.name!r} has {len(entry)} values; at most {MAX_WIDTH} are allowed"
        )
    for part in entry:
        if not isinstance(part, _NUMBER if field.kind == "dense_vector" else _VALUE):
            words = "a list of numbers" if field.kind == "dense_vector" else "made of plain values"
            raise bad_request(f"context field {field.name!r} must be {words}")
        _check_length(field.name, part, limits)


def _check_length(name: str, value: object, limits: LimitsConfig) -> None:
    if isinstance(value, str) and len(value) > limits.max_string_chars:
        raise bad_request(f"{name!r} is longer than {limits.max_string_chars} characters")


def _top_k(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise bad_request("'top_k' must be a positive integer")
    return value


def render_rank(request: RankRequest, scores: Scores, parameters: dict[str, Any]) -> bytes:
    """The body of the answer: items, best first (ties in the order given)."""
    order = np.argsort(-scores.probability, kind="stable")
    if request.top_k is not None:
        order = order[: request.top_k]
    candidates = request.candidates
    items = [
        {"item": candidates[i], "probability": p, "route": r}
        for i, p, r in zip(
            order.tolist(),
            scores.probability[order].tolist(),
            scores.route[order].tolist(),
            strict=True,
        )
    ]
    return orjson.dumps({"items": items, **parameters})
