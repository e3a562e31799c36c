"""The two scored endpoints: how each reads a request and writes an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dynens.batch import Candidates, IdColumns, Rows
from dynens.config.serving import LimitsConfig
from dynens.engine import Engine, Scores
from serving.errors import RequestError
from serving.http import BINARY_TYPE, Response
from serving.rank import RankRequest, parse_rank, render_rank
from serving.tensors import Field
from serving.v2 import HEADER_LENGTH, MODEL_NAME, InferRequest, parse_infer, render_infer

Request = TypeVar("Request", InferRequest, RankRequest)


@dataclass(frozen=True)
class Model:
    """An engine with what requests need to know of it.

    Attributes:
        engine: what scores.
        fields: the raw inputs.
        context_fields: those that candidates of a ranking request share.
        told_fields: the raw inputs that no table knows, nor the user's key: a ranking request tells
            them, or they are missing.
        user_fields: those that the user table knows, its key aside: missing for other users.
        user_key: the schema's name of the user's key, or None.
        version: of the bundle.
        dynens_version: that wrote it.
        default_budget_ms: of requests that have none.
        can_rank: whether items are joined from a table.
        id_columns: which ids are of which field.
    """

    engine: Engine
    fields: dict[str, Field]
    context_fields: dict[str, Field]
    told_fields: frozenset[str]
    user_fields: frozenset[str]
    user_key: str | None
    version: str
    dynens_version: str
    default_budget_ms: float
    can_rank: bool
    id_columns: IdColumns

    @classmethod
    def of(cls, engine: Engine) -> Model:
        encoder, manifest = engine.encoder, engine.bundle.manifest
        fields = {
            f.name: Field(f.name, f.kind, f.entity, encoder.separators_of(f.name))
            for f in encoder.input_fields
        }
        joined = encoder.joined_fields
        of_user = {name for name in joined & fields.keys() if fields[name].entity == "user"}
        return cls(
            engine=engine,
            fields=fields,
            context_fields={n: f for n, f in fields.items() if f.entity != "item"},
            told_fields=frozenset(fields.keys() - joined - {encoder.user_key}),
            user_fields=frozenset(of_user - {encoder.user_key}),
            user_key=encoder.user_key,
            version=manifest.bundle_version,
            dynens_version=manifest.dynens_version,
            default_budget_ms=manifest.default_budget_ms,
            can_rank=encoder.has_item_entity,
            id_columns=IdColumns.of(engine.layout),
        )


class Codec(ABC, Generic[Request]):
    """One scored endpoint."""

    def check(self, model: Model) -> None:
        """Refuse what the model cannot do, before any work."""
        del model

    @abstractmethod
    def parse(
        self, body: bytes, headers: Mapping[bytes, bytes], model: Model, limits: LimitsConfig
    ) -> Request:
        """Read a body.

        Raises:
            RequestError: it is not a valid request.
        """

    @abstractmethod
    def encode(self, request: Request, model: Model) -> Rows:
        """The rows asked for."""

    @abstractmethod
    def render(
        self, request: Request, rows: Rows, scores: Scores, model: Model, report: dict[str, Any]
    ) -> Response:
        """The answer, with what it says about itself."""


class InferCodec(Codec[InferRequest]):
    """`POST /v2/models/dynens/infer`."""

    _header = HEADER_LENGTH.lower().encode()

    def parse(
        self, body: bytes, headers: Mapping[bytes, bytes], model: Model, limits: LimitsConfig
    ) -> InferRequest:
        return parse_infer(body, headers.get(self._header), model.fields, limits)

    def encode(self, request: InferRequest, model: Model) -> Rows:
        return model.engine.encoder.encode_columns(request.columns)

    def render(
        self,
        request: InferRequest,
        rows: Rows,
        scores: Scores,
        model: Model,
        report: dict[str, Any],
    ) -> Response:
        del rows
        report["bundle_version"] = model.version
        if len(request.columns) < len(model.fields):
            report["missing_fields"] = ",".join(
                name for name in model.fields if name not in request.columns
            )
        body, header_length = render_infer(request, scores, model.version, report)
        if header_length is None:
            return Response(200, body)
        header = (HEADER_LENGTH.encode(), str(header_length).encode())
        return Response(200, body, BINARY_TYPE, (header,))


class RankCodec(Codec[RankRequest]):
    """`POST /v1/rank`."""

    def check(self, model: Model) -> None:
        if not model.can_rank:
            raise RequestError(
                404,
                f"this bundle has no item table to join, so it cannot rank; "
                f"send full rows to /v2/models/{MODEL_NAME}/infer",
                reason="bad_request",
            )

    def parse(
        self, body: bytes, headers: Mapping[bytes, bytes], model: Model, limits: LimitsConfig
    ) -> RankRequest:
        del headers
        return parse_rank(body, model.user_key, model.context_fields, limits)

    def encode(self, request: RankRequest, model: Model) -> Rows:
        return model.engine.encode_rank(request.user, request.context, request.candidates)

    def render(
        self, request: RankRequest, rows: Rows, scores: Scores, model: Model, report: dict[str, Any]
    ) -> Response:
        report["bundle_version"] = model.version
        encoder = model.engine.encoder
        missing = model.told_fields
        if request.user is None or encoder.count_strangers("user", [request.user]):
            missing |= model.user_fields
        if request.user is None and model.user_key in model.fields:
            missing |= {model.user_key}
        missing -= request.context.keys()
        if missing:
            report["missing_fields"] = ",".join(sorted(missing))
        if not isinstance(rows, Candidates):  # which are of the table, all of them
            strangers = encoder.count_strangers("item", request.candidates)
            if strangers:
                report["unknown_items"] = strangers
        return Response(200, render_rank(request, scores, report))


_INFER, _RANK = InferCodec(), RankCodec()
CODECS: dict[str, Codec[Any]] = {
    f"/v2/models/{MODEL_NAME}/infer": _INFER,
    "/v1/rank": _RANK,
}
