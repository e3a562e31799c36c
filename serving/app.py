"""The Ray Serve deployment around `Application`.

`build` is what a Serve configuration file names as `import_path: serving.app:build`; see
docs/SERVING.md for a complete file.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application as ServeApplication
from ray.serve.schema import LoggingConfig

from dynens.config.base import FrozenConfig, validate
from dynens.config.serving import ServingConfig
from dynens.engine import Engine
from dynens.errors import BundleError
from serving import one_write
from serving.application import Application
from serving.environment import APP_NAME, bearer_token
from serving.http import Receive, Scope, Send, lifespan
from serving.metrics import SnapshotFolder

logger = logging.getLogger("dynens.serving")

# Admission is the application's own, with its own answers; Serve's queue must not come before it.
_MAX_ONGOING = 100_000


# Without the level, Serve formats an access record for every request before it drops it.
QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)


class AppArgs(FrozenConfig):
    """Arguments of `build` in a Serve configuration file.

    Attributes:
        bundle: directory of the bundle (or of a run that holds one), readable on every node.
        serving: settings of the server.
        metrics_dir: folder shared by the replicas of one machine, so that each can answer for all
            at `/metrics`; None: each answers for itself.
        generation: tells two deployments of one `bundle` apart, so that it is loaded again.
    """

    bundle: str
    serving: ServingConfig = ServingConfig()
    metrics_dir: str | None = None
    generation: int = 0


class Replica:
    """One scoring process.

    The bundle comes through Serve's `user_config`, so that a deployment that changes nothing else
    reconfigures running replicas in place (see `_code_version`), and replicas started later (after
    a crash, say) get the latest one.

    Args:
        serving: `ServingConfig` as plain values.
        metrics_dir: see `AppArgs`.
    """

    def __init__(self, serving: dict[str, Any], metrics_dir: str | None) -> None:
        one_write.install()
        self._config = ServingConfig.model_validate(serving)
        self._token = bearer_token(self._config.bearer_token_env)
        folder = None if metrics_dir is None else Path(metrics_dir)
        name = serve.get_replica_context().replica_id.unique_id
        self._folder = SnapshotFolder(folder, name)
        self._application: Application | None = None
        self._publisher: asyncio.Task[None] | None = None

    def __serve_build_asgi_app__(self) -> Any:
        # A plain function: uvicorn takes bound methods for the old two-step ASGI.
        async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":  # comes before the first bundle
                await lifespan(receive, send)
            elif self._application is not None:
                await self._application(scope, receive, send)

        return dispatch

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load the bundle of `user_config`; a later one that cannot be loaded changes nothing."""
        bundle = Path(user_config["bundle"])
        if self._application is None:
            engine = Engine.load(bundle, self._config.engine)
            self._application = Application(
                engine, self._config, folder=self._folder, token=self._token
            )
            _settle_memory()
            self._publisher = asyncio.create_task(self._application.publish_forever())
            return
        await self._swap(self._application, bundle)

    async def _swap(self, application: Application, bundle: Path) -> None:
        """Load and warm up in a thread while the old bundle goes on answering, on shared cores."""
        try:
            engine = await asyncio.to_thread(Engine.load, bundle, self._config.engine)
        except BundleError:
            logger.exception("the new bundle was refused; the old one goes on answering")
            application.metrics.swapped("refused")
        else:
            application.replace(engine)
            application.metrics.swapped("done")
            gc.freeze()
        application.publish()

    async def __del__(self) -> None:
        """Called by Serve when the replica has drained: leave the last counts behind."""
        if self._publisher is not None:
            self._publisher.cancel()
        if self._application is not None:
            self._application.publish()


def _settle_memory() -> None:
    """Take what was just loaded out of the garbage collector's sight, and let it run rarely.

    A full collection over a loaded engine takes milliseconds, which is a budget.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    # The loop, the scoring thread and a thread that loads another bundle must not wait for the
    # interpreter's usual 5 ms turns.
    sys.setswitchinterval(2e-4)


def _code_version(arguments: dict[str, Any]) -> str:
    """What tells Serve whether running replicas may stay.

    `serve.run` draws a version at random where a deployment has none, and replaces every replica;
    it does not compare the constructor's arguments itself.
    """
    return hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()


def build(args: AppArgs | dict[str, Any]) -> ServeApplication:
    """The Serve application; a configuration file's `args` arrive as a mapping.

    Raises:
        ConfigError: a key is unknown or a value out of range.
    """
    if isinstance(args, dict):
        args = validate(AppArgs, args, "args of serving.app:build")
    config = args.serving
    arguments = {"serving": config.model_dump(mode="json"), "metrics_dir": args.metrics_dir}
    deployment = serve.deployment(
        name=APP_NAME,
        num_replicas=config.replicas,
        max_ongoing_requests=_MAX_ONGOING,
        user_config={"bundle": args.bundle, "generation": args.generation},
        ray_actor_options={"num_cpus": 1},
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=config.drain_s,
        graceful_shutdown_wait_loop_s=0.2,
        logging_config=QUIET,
    )(serve.ingress()(Replica))
    # Serve takes a version only from its own callers.
    deployment = deployment.options(version=_code_version(arguments), _internal=True)
    bound: ServeApplication = deployment.bind(**arguments)
    return bound
