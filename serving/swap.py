"""Which bundle a server answers from: kept copies, verification, swap and rollback."""

from __future__ import annotations

import math
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dynens.bundle import Bundle, load_bundle
from dynens.config.serving import ServingConfig
from dynens.data.encoding.encoders import RowEncoder
from dynens.engine import Engine
from dynens.errors import BadInputError, BundleError, ServingError
from serving.environment import Runtime
from serving.metrics import SnapshotFolder

# Tell every replica to load the bundle in this directory; the number makes each call distinct.
Deploy = Callable[[Path, int], None]
_POLL_S = 0.1
_TIMEOUT_S = 120.0


class BundleKeeper:
    """The bundles of one server.

    Replicas load from copies in the server's private folder: a run that is fitted again while its
    bundle is being served can then harm neither a replica that starts later nor a rollback.

    Args:
        runtime: the server's folders.
        first: the bundle to begin with, verified.
        config: of the server; all its replicas must follow a change.
    """

    def __init__(self, runtime: Runtime, first: Bundle, config: ServingConfig) -> None:
        self._runtime = runtime
        self._config = config
        self._generation = 0
        self._lock = threading.Lock()
        self.current = self._keep(first)
        self.previous: Bundle | None = None

    def handle(self, command: dict[str, Any], deploy: Deploy) -> dict[str, Any]:
        """Carry out a command of the control socket."""
        name = command["command"]
        if name == "status":
            return self._status()
        with self._lock:
            if name == "swap":
                return self._swap(Path(str(command["bundle"])), deploy)
            if name == "rollback":
                return self._rollback(deploy)
        raise BadInputError(f"there is no command {name!r}; use swap, rollback or status.")

    def _swap(self, directory: Path, deploy: Deploy) -> dict[str, Any]:
        bundle = load_bundle(directory)
        if bundle.version == self.current.version:
            return self._status()
        kept = self._keep(bundle)
        try:
            self._check(kept)
            self._change(kept, deploy)
        except (BundleError, ServingError):
            self._discard(kept)
            raise
        return self._status()

    def _rollback(self, deploy: Deploy) -> dict[str, Any]:
        if self.previous is None:
            raise BadInputError("there is no bundle before this one to go back to.")
        self._change(self.previous, deploy)
        return self._status()

    def _change(self, bundle: Bundle, deploy: Deploy) -> None:
        """Have every replica follow; if one does not, all go back."""
        try:
            self._deploy(bundle, deploy)
            if not self._all_answer_from(bundle.version):
                raise ServingError(f"not every replica could load bundle {bundle.version}")
        except ServingError as e:
            # Also the next replica to start must load the old one.
            self._deploy(self.current, deploy)
            raise ServingError(
                f"{str(e).rstrip('.')}; all answer from {self.current.version} again."
            ) from e
        stale = self.previous
        self.previous, self.current = self.current, bundle
        if stale is not None:
            self._discard(stale)

    def _deploy(self, bundle: Bundle, deploy: Deploy) -> None:
        self._generation += 1
        deploy(bundle.directory, self._generation)

    def _check(self, bundle: Bundle) -> None:
        """Load and warm up once here, and compare what clients may send and what a threshold means.

        Raises:
            BundleError: it does not load, or lacks something that clients of the old one use, or
                the server's own threshold means something else to it.
        """
        new = Engine.load(bundle.directory, self._config.engine).encoder
        old = RowEncoder.load(self.current.encoder)
        kinds = {f.name: f.kind for f in new.input_fields}
        lost = [f.name for f in old.input_fields if kinds.get(f.name) != f.kind]
        if lost:
            raise BundleError(
                f"bundle {bundle.version} does not take the fields {', '.join(lost[:5])} as the "
                "running one does; start a new server for it."
            )
        if old.has_item_entity and not new.has_item_entity:
            raise BundleError(
                f"bundle {bundle.version} cannot rank by item as the running one does; "
                "start a new server for it."
            )
        given = self._config.threshold
        scores = [b.manifest.router.difficulty for b in (self.current, bundle)]
        if given is not None and math.isfinite(given) and scores[0] != scores[1]:
            raise BundleError(
                f"bundle {bundle.version} calls rows hard by {scores[1]}, and the threshold of "
                f"{given:g} that this server was given is one of {scores[0]}; start a new server."
            )

    def _keep(self, bundle: Bundle) -> Bundle:
        """A copy in the private folder, verified again after copying.

        It may be another bundle than the given one, which was replaced while it was copied.
        """
        folder = self._runtime.directory / "bundles"
        staging = folder / "copy.tmp"
        shutil.rmtree(staging, ignore_errors=True)
        try:
            shutil.copytree(bundle.directory, staging)
            directory = folder / load_bundle(staging).version
            if not directory.exists():
                os.replace(staging, directory)
        except OSError as e:  # shutil's own error has no strerror
            raise ServingError(
                f"bundle {bundle.version} cannot be copied into the server's folder "
                f"({e.strerror or 'some files failed'})."
            ) from e
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return load_bundle(directory)

    def _discard(self, bundle: Bundle) -> None:
        """Remove a copy, unless it is one that the server answers from or may go back to."""
        if bundle.version not in (self.current.version, self._previous_version()):
            shutil.rmtree(bundle.directory, ignore_errors=True)

    def _all_answer_from(self, version: str) -> bool:
        give_up = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < give_up:
            versions = [v for v in self._versions() if v is not None]
            if versions.count(version) >= self._config.replicas and set(versions) == {version}:
                return True
            time.sleep(_POLL_S)
        return False

    def _versions(self) -> list[str | None]:
        folder = SnapshotFolder(self._runtime.metrics, "")
        return [s["gauges"]["version"] if alive else None for s, alive in folder.others()]

    def _previous_version(self) -> str | None:
        return None if self.previous is None else self.previous.version

    def _status(self) -> dict[str, Any]:
        return {"bundle_version": self.current.version, "previous": self._previous_version()}
