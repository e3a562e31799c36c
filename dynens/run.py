"""The run directory: where everything `dynens fit` makes has its place."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dynens.config.base import load_yaml
from dynens.errors import BadInputError, BundleError, DynensError

CONFIG = "config.yaml"
# In the folders of stages.
MODEL_ONNX = "model.onnx"
ENSEMBLE_JSON = "ensemble.json"
ROUTER_JSON = "router.json"
FIT_REPORT = "fit.json"
VERSIONED = (
    "dynens",
    "numpy",
    "onnxruntime",
    "pyarrow",
    "torch",
    "torchrec",
    "ray",
    "xgboost",
)


class RunDirectory:
    """Paths inside a run, and the few files that describe it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / CONFIG
        self.environment = root / "environment.json"
        self.data = root / "data"
        self.learners = root / "learners"
        self.ensemble = root / "ensemble"
        self.architecture = root / "architecture"
        self.student = root / "student"
        self.baseline = root / "baseline"
        self.router = root / "router"
        self.bundle = root / "bundle"
        self.report = root / "report"
        self.first_pass = root / "first_pass"
        self.work = root / ".work"

    def learner(self, name: str) -> Path:
        return self.learners / name

    @property
    def is_refitted(self) -> bool:
        """Whether its models are trained a second time, on validation rows, too."""
        return (self.first_pass / CONFIG).is_file()

    @property
    def held_out(self) -> RunDirectory:
        """The run whose validation rows trained nothing: this one, or its first pass."""
        return RunDirectory(self.first_pass) if self.is_refitted else self

    @classmethod
    def open(cls, root: Path) -> RunDirectory:
        """An existing run.

        Raises:
            BundleError: the directory is no run.
        """
        run = cls(root)
        if not os.path.isfile(run.config):
            raise BundleError(
                f"{root} is not a run directory (no {CONFIG}); give the --out directory of a "
                "`dynens fit`."
            )
        return run

    def read_config(self) -> dict[str, Any]:
        """The run's configuration.

        Raises:
            ConfigError: the file cannot be read.
            BundleError: it is empty, as that of no run is.
        """
        settings = load_yaml(self.config)
        if not settings:
            raise BundleError(f"{self.config} is empty; bring it back, or fit the run anew.")
        return settings

    def start(
        self,
        config: Mapping[str, Any],
        *,
        resume: bool,
        normalised: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ) -> None:
        """Create the directory and its config.yaml, or check that a resumed run is the same one.

        Args:
            config: every setting.
            resume: whether the run may exist.
            normalised: applied to both configurations before they are compared, so that what a
                later version added does not count as a change.

        Raises:
            BadInputError: the directory holds something else, or the configuration has changed.
        """
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        try:
            if self._is_there(text, resume, normalised):
                return
            self.root.mkdir(parents=True, exist_ok=True)
            write_text(self.config, text)
            write_json(self.environment, environment())
        except OSError as e:
            raise BadInputError(
                f"{self.root} cannot be written ({e.strerror}); choose another --out directory."
            ) from e

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """A block that no other process runs on this run meanwhile; killed ones do not count.

        Raises:
            BadInputError: another process has it.
        """
        handle = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise BadInputError(
                f"another dynens works on {self.root}; wait for its end, or end it and resume."
            ) from e
        except OSError:
            pass  # a file system without locks
        try:
            yield
        finally:
            os.close(handle)

    def _is_there(
        self, text: str, resume: bool, normalised: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    ) -> bool:
        """Whether the run exists and may go on; False: a new one may be made here."""
        if self.root.exists() and not self.root.is_dir():
            raise BadInputError(f"{self.root} is a file; choose another --out directory.")
        for parent in map(RunDirectory, self.root.resolve().parents):
            if parent.config.is_file() and parent.environment.is_file():
                raise BadInputError(
                    f"{self.root} lies inside the run {parent.root}; choose an --out outside of it."
                )
        if self.config.is_file():
            if not resume:
                raise BadInputError(
                    f"{self.root} already holds a run; pass --resume to continue it or choose "
                    "another --out."
                )
            key = _difference(normalised(self.read_config()), normalised(yaml.safe_load(text)))
            if key is not None:
                raise BadInputError(
                    f"{self.config} differs from the configuration given now in {key}; resume with "
                    "the same one or choose another --out."
                )
            return True
        if self.root.is_dir() and any(self.root.iterdir()):
            raise BadInputError(
                f"{self.root} is not empty and holds no run; choose another --out directory."
            )
        return False


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """The first key in which two configurations differ, as `section.key`; None: there is none."""
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping) and before != after:
            return f"{key}.{_difference(before, after)}"
        if before != after:
            return key
    return None


def environment() -> dict[str, Any]:
    """Versions, machine, commit and day, for `environment.json`."""
    versions = {}
    for name in VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "versions": versions,
        "commit": _commit(),
        "command": " ".join(["dynens", *sys.argv[1:]]),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    try:
        output = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return output.stdout.strip()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write under a temporary name, then rename, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_atomically` of a text."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Write JSON under a temporary name, then rename; NaN and infinity become null."""
    write_text(path, json.dumps(finite(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON that a run wrote.

    Raises:
        BundleError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise BundleError(
            f"{path} is missing or damaged; finish the run with `dynens fit … --resume`."
        ) from e


@contextlib.contextmanager
def intact(path: Path) -> Iterator[None]:
    """A block that reads one file of a run, whose failure means that the file is not intact.

    Raises:
        BundleError: the file is missing or damaged.
    """
    try:
        yield
    except (DynensError, MemoryError):
        raise
    except Exception as e:  # every reader has classes of its own
        raise BundleError(
            f"{path} is missing or damaged; remove its folder and make it again with "
            "`dynens fit … --resume`."
        ) from e


@contextlib.contextmanager
def no_empty_folders(path: Path) -> Iterator[None]:
    """Where the block fails, remove the folders of `path` that it made and left empty."""
    new = [folder for folder in (path, *path.parents) if not os.path.exists(folder)]
    try:
        yield
    except BaseException:
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def replace_directory(source: Path, target: Path) -> None:
    """Rename a finished directory into place.

    An older one is moved away first and then deleted: whoever is killed meanwhile leaves the old
    directory, the new one or none there, and never a part of one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        os.replace(source, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    os.replace(target, old / target.name)
    os.replace(source, target)
    shutil.rmtree(old, ignore_errors=True)


def finite(data: Any) -> Any:
    """The same data as plain JSON values, NaN and infinity as None."""
    if isinstance(data, Mapping):
        return {str(k): finite(v) for k, v in data.items()}
    if isinstance(data, list | tuple):
        return [finite(v) for v in data]
    if isinstance(data, np.generic):
        data = data.item()
    if isinstance(data, float) and not np.isfinite(data):
        return None
    return data
