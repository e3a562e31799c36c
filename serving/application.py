"""The ASGI application of one replica: routing, admission, the budget, and every answer.

It knows nothing of Ray, so it can be driven by a test or by any ASGI server.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from typing import Any

from dynens.batch import Rows
from dynens.config.serving import ServingConfig
from dynens.engine import BudgetSpentError, Engine, Scores
from dynens.errors import DataError
from serving import metrics as pages
from serving.clock import (
    ARRIVAL_HEADER,
    BUDGET_HEADER,
    budget_ms,
    header_map,
    queue_seconds,
)
from serving.codecs import CODECS, Codec, Model
from serving.errors import ClientGoneError, RequestError, bad_request
from serving.gate import Gate, Progress, shed, spent
from serving.http import Receive, Response, Scope, Send, lifespan, read_body
from serving.metrics import ReplicaMetrics, SnapshotFolder
from serving.openapi import openapi_document
from serving.scheduler import OverloadedError, Scheduler
from serving.v2 import MODEL_NAME, model_metadata
from serving.waiting import Alarm, DisconnectWatch

logger = logging.getLogger("dynens.serving")

Handler = Callable[[], Awaitable[Response]]
_LIVE, _READY = "/v2/health/live", "/v2/health/ready"
_VERSIONS = f"/v2/models/{MODEL_NAME}/versions/"
_OPEN_PATHS = frozenset({_LIVE, _READY})
_LARGE_BODY = 256 * 1024  # bytes; some 2000 rows of ten fields
_PUBLISH_EVERY_S = 1.0


class Application:
    """Serves one model.

    Args:
        engine: a warmed-up engine; its clock is the application's.
        config: settings of the server.
        folder: where replicas share their counts.
        token: what clients must send as bearer token, or None.
    """

    def __init__(
        self,
        engine: Engine,
        config: ServingConfig,
        *,
        folder: SnapshotFolder,
        token: str | None = None,
    ) -> None:
        self.config = config
        self.model = Model.of(engine)
        self.metrics = ReplicaMetrics(engine.layout, engine.bundle.version)
        self._folder = folder
        self._authorization = None if token is None else f"Bearer {token}".encode()
        self._scheduler = Scheduler(threaded=config.scoring_thread)
        self._gate = Gate(config.max_queued)
        self._large = asyncio.Lock()
        self._pages: dict[str, Handler] = {
            _LIVE: self._live,
            _READY: self._ready,
            "/v2": self._server_metadata,
            f"/v2/models/{MODEL_NAME}": self._model_metadata,
            f"/v2/models/{MODEL_NAME}/ready": self._ready,
            "/metrics": self._metrics_page,
            "/openapi.json": self._openapi,
        }

    def replace(self, engine: Engine) -> None:
        """Answer later requests from another engine; those under way keep theirs."""
        self.model = Model.of(engine)
        self.metrics.describe(engine.layout, engine.bundle.version)

    async def publish_forever(self) -> None:
        """Keep this replica's counts in the shared folder."""
        while True:
            self.publish()
            await asyncio.sleep(_PUBLISH_EVERY_S)

    def publish(self) -> None:
        """Write this replica's counts to the shared folder."""
        self._folder.write(self._snapshot())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            response = await self._respond(scope, receive)
        except RequestError as e:
            self.metrics.refuse(e.reason)
            response = Response.error(e)
        except ClientGoneError:
            self.metrics.disconnected += 1
            response = Response.error(RequestError(499, "the client disconnected"))
        except Exception:
            logger.exception("request to %s failed", scope["path"])
            self.metrics.refuse("internal")
            response = Response.error(RequestError(500, "internal error"))
        self.metrics.responded(response.status)
        await response.send(send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        path, method = scope["path"], scope["method"]
        prefix = scope.get("root_path")
        if prefix and path.startswith(prefix):
            path = path[len(prefix) :] or "/"
        headers = header_map(scope["headers"])
        path = path.rstrip("/") or "/"
        if self._authorization is not None and path not in _OPEN_PATHS:
            self._authorize(headers)
        if path.startswith(_VERSIONS):  # only one answers
            path = path.replace(f"/versions/{self.model.version}", "", 1)
        codec = CODECS.get(path)
        if codec is not None:
            if method != "POST":
                raise _other_method(path, "POST")
            return await self._score_request(codec, headers, receive)
        page = self._pages.get(path)
        if page is None:
            raise RequestError(404, f"there is no {path[:80]}", reason="bad_request")
        if method not in ("GET", "HEAD"):
            raise _other_method(path[:80], "GET", "HEAD")
        return await page()

    def _authorize(self, headers: Mapping[bytes, bytes]) -> None:
        assert self._authorization is not None
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = scheme.capitalize() + b" " + token.strip()
        if not hmac.compare_digest(given, self._authorization):
            raise RequestError(
                401,
                "send the server's token as 'Authorization: Bearer'",
                reason="unauthorized",
                header=("WWW-Authenticate", "Bearer"),
            )

    async def _score_request(
        self, codec: Codec[Any], headers: Mapping[bytes, bytes], receive: Receive
    ) -> Response:
        model = self.model
        codec.check(model)
        progress = self._start(model, headers)
        gate, engine = self._gate, model.engine
        if progress.by_header:
            gate.admit(progress, engine)
        body = await self._read(headers, receive, progress, model)
        with gate.holding(progress, engine):
            request, rows = await self._understand(codec, body, headers, model, progress)
            scores = await self._score(model, rows, progress, receive)
        scored_s = engine.clock()
        elapsed_ms = (scored_s - progress.arrival_s) * 1e3
        response = codec.render(request, rows, scores, model, _report(scores, progress, elapsed_ms))
        now = engine.clock()
        gate.reply_cost.observe(len(rows), now - scored_s, now)
        if now > progress.deadline_s:
            raise spent()
        self.metrics.answered(scores, rows, model.id_columns, elapsed_ms)
        return response

    async def _understand(
        self,
        codec: Codec[Any],
        body: bytes,
        headers: Mapping[bytes, bytes],
        model: Model,
        progress: Progress,
    ) -> tuple[Any, Rows]:
        """The request and its encoded rows, if it is (still) worth the work.

        A large body is read beside the event loop, where it would hold up all other requests by
        tens of milliseconds, and after those that came before it.
        """
        is_large, limits = len(body) > _LARGE_BODY, self.config.limits
        work = asyncio.to_thread if is_large else _at_once
        try:
            async with self._large if is_large else nullcontext():
                if progress.by_header or _PARAMETER not in body:
                    self._gate.admit(progress, model.engine)
                request = await work(codec.parse, body, headers, model, limits)
                if request.budget is not None and not progress.by_header:
                    own_ms, longest_ms = progress.budget_ms, limits.max_budget_ms
                    progress.budget_ms = budget_ms(request.budget, own_ms, longest_ms)
                self._gate.admit(progress, model.engine)
                return request, await work(codec.encode, request, model)
        except DataError as e:
            raise bad_request(str(e)) from e
        except RecursionError as e:
            raise bad_request("the body is nested too deeply") from e

    def _start(self, model: Model, headers: Mapping[bytes, bytes]) -> Progress:
        queued_s = queue_seconds(headers.get(ARRIVAL_HEADER), time.time())
        self.metrics.queue.observe(queued_s * 1e3)
        now = model.engine.clock()
        default_ms = self.config.latency_budget_ms or model.default_budget_ms
        given = headers.get(BUDGET_HEADER)
        budget = budget_ms(given, default_ms, self.config.limits.max_budget_ms)
        return Progress(now - queued_s, queued_s, budget, given is not None)

    async def _read(
        self,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        progress: Progress,
        model: Model,
    ) -> bytes:
        """The body, which may arrive slowly: then the budget's end is the limit.

        Until the body is here it may hold a longer budget than the default.
        """
        left_s = progress.deadline_s - model.engine.clock()
        alarm = Alarm(max(left_s, _MIN_BODY_S if progress.by_header else _PATIENCE_S))
        try:
            with self._gate.uploading():
                return await read_body(headers, receive, self.config.limits.max_body_bytes)
        except asyncio.CancelledError:
            if alarm.rang():
                raise spent() from None
            raise
        finally:
            alarm.stop()

    async def _score(
        self, model: Model, rows: Rows, progress: Progress, receive: Receive
    ) -> Scores:
        watch = DisconnectWatch(receive)
        reply_s = self._gate.reply_cost.seconds(len(rows), model.engine.clock())
        try:
            return await self._scheduler.score(
                model.engine,
                rows,
                system=self.config.system,
                deadline_s=progress.deadline_s - reply_s,
                threshold=self.config.threshold,
                pressure=self._gate.queue.pressure,
                on_wait=watch.start,
            )
        except BudgetSpentError as e:
            raise spent() from e
        except OverloadedError as e:
            message = "the ensemble has no time left for this request; try again"
            raise shed("ensemble", message) from e
        except asyncio.CancelledError:
            watch.raise_if_gone()
            raise
        finally:
            watch.stop()

    async def _live(self) -> Response:
        return Response.json({"live": True})

    async def _ready(self) -> Response:
        return Response.json({"ready": True, "bundle_version": self.model.version})

    async def _server_metadata(self) -> Response:
        return Response.json(
            {
                "name": MODEL_NAME,
                "version": self.model.dynens_version,
                "extensions": ["binary_tensor_data"],
            }
        )

    async def _model_metadata(self) -> Response:
        return Response.json(model_metadata(self.model.fields, self.model.version))

    async def _openapi(self) -> Response:
        return Response.json(openapi_document(self.model, self.config))

    async def _metrics_page(self) -> Response:
        loop = asyncio.get_running_loop()
        page = await loop.run_in_executor(None, pages.render, self._snapshot(), self._folder)
        return Response(200, page, pages.CONTENT_TYPE.encode())

    def _snapshot(self) -> dict[str, object]:
        engine = self.model.engine
        self.metrics.in_flight = self._gate.in_flight
        self.metrics.slowdown = engine.ensemble_cost.slowdown_at(engine.clock())
        return self.metrics.snapshot()


# A body that is already here is read whatever the clock says; the budget is checked afterwards.
_MIN_BODY_S = 1e-3
_PATIENCE_S = 1.0
_PARAMETER = b"latency_budget_ms"


async def _at_once(work: Callable[..., Any], *arguments: Any) -> Any:
    return work(*arguments)


def _report(scores: Scores, progress: Progress, elapsed_ms: float) -> dict[str, object]:
    """What every answer says about itself."""
    return {
        "hard_wanted": scores.hard_wanted,
        "hard_granted": scores.hard_granted,
        "budget_ms": progress.budget_ms,
        "elapsed_ms": round(elapsed_ms, 3),
        "degraded": scores.degraded,
    }


def _other_method(path: str, *allowed: str) -> RequestError:
    return RequestError(
        405,
        f"{path} takes {allowed[0]}",
        reason="bad_request",
        header=("Allow", ", ".join(allowed)),
    )
