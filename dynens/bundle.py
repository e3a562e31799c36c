"""The bundle: everything serving needs, in one directory with checksums.

Training writes it, serving reads it, and nothing else passes between the two:

    manifest.json   what it is, the router's threshold, checksums
    student.onnx    dense, ids, context_rows -> logit, probability, difficulty
    ensemble.onnx   dense, ids, context_rows, student_logit -> probability, trio_probability
    encoder/        raw values -> encoded rows
    ranking/        the same graphs for candidates from the item table, where there is one
                    (`dynens.models.rank_graph`); a graph that lacks gets candidates as rows

`context_rows` is 1 when all rows agree in the context columns that the manifest's layout counts,
else the number of rows; graphs of a layout without such columns do not have it.

A bundle is written under a temporary name and renamed, and `bundle_version` is a hash of its
content, so the same bundle always carries the same version.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from pydantic import ConfigDict, ValidationError

from dynens import __version__
from dynens.batch import FeatureLayout
from dynens.config.base import FrozenConfig
from dynens.config.serving import Threshold
from dynens.errors import BundleError
from dynens.run import replace_directory

BUNDLE_FORMAT = 2
MANIFEST = "manifest.json"
STUDENT = "student.onnx"
ENSEMBLE = "ensemble.onnx"
ENCODER = "encoder"
RANKING = "ranking"
# What each graph gives, (N,) float32 each.
GRAPH_OUTPUTS = {
    STUDENT: ("logit", "probability", "difficulty"),
    ENSEMBLE: ("probability", "trio_probability"),
}
_MANIFEST_LIMIT_BYTES = 16 * 1024 * 1024


class RouterSpec(FrozenConfig):
    """When a row is hard: `difficulty > threshold`.

    Attributes:
        threshold: may be infinite (no row is hard) or minus infinite (every row is).
        difficulty: name of the difficulty score in the student's graph.
        hard_fraction: share of hard rows expected from validation.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    threshold: Threshold
    difficulty: str
    hard_fraction: float


class FileEntry(FrozenConfig):
    """Checksum and size of one file of the bundle."""

    sha256: str
    size_bytes: int


class Manifest(FrozenConfig):
    """The content of manifest.json."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    format: int
    bundle_version: str
    dynens_version: str
    created: str
    dataset: str
    layout: dict[str, Any]
    router: RouterSpec
    members: tuple[str, ...]
    cost_us_per_row: dict[str, float] | None = None  # of bundles written earlier
    default_budget_ms: float
    checksums: dict[str, FileEntry]
    metrics: dict[str, Any] | None = None


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest (and, if asked, every file) has been checked."""

    directory: Path
    manifest: Manifest
    layout: FeatureLayout

    @property
    def version(self) -> str:
        return self.manifest.bundle_version

    @property
    def student(self) -> Path:
        return self.directory / STUDENT

    @property
    def ensemble(self) -> Path:
        return self.directory / ENSEMBLE

    @property
    def encoder(self) -> Path:
        return self.directory / ENCODER

    @property
    def rank_student(self) -> Path | None:
        """The student for candidates, where the bundle has one."""
        return self._ranking(STUDENT)

    @property
    def rank_ensemble(self) -> Path | None:
        """The ensemble for candidates, where the bundle has one."""
        return self._ranking(ENSEMBLE)

    def _ranking(self, name: str) -> Path | None:
        relative = f"{RANKING}/{name}"
        return self.directory / relative if relative in self.manifest.checksums else None


class SavesItself(Protocol):
    """What `write_bundle` needs of an encoder."""

    def save(self, directory: Path) -> object: ...


def _checksums(directory: Path) -> dict[str, FileEntry]:
    """Every file of a folder by its relative path."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): _entry(path) for path in files}


def write_bundle(
    directory: Path,
    *,
    dataset: str,
    layout: FeatureLayout,
    router: RouterSpec,
    members: Sequence[str],
    student: Path,
    ensemble: Path,
    encoder: SavesItself,
    ranking: Path | None = None,
    default_budget_ms: float = 8.0,
    metrics: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write a complete bundle to `directory`, replacing one that is there.

    Args:
        directory: where the bundle will be; its parent is created.
        dataset: name shown to people.
        layout: layout of the encoded rows that both graphs take.
        router: threshold and the name of the difficulty score.
        members: names of the ensemble's members.
        student: ONNX file with outputs `logit`, `probability`, `difficulty`.
        ensemble: ONNX file with outputs `probability`, `trio_probability`.
        encoder: saved into the bundle through its own `save`.
        ranking: folder that holds the same files for candidates, one of them or none.
        default_budget_ms: latency budget of a request that names none.
        metrics: anything worth keeping beside the model (shown, never interpreted).
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        shutil.copyfile(student, staging / STUDENT)
        shutil.copyfile(ensemble, staging / ENSEMBLE)
        (staging / ENCODER).mkdir()
        encoder.save(staging / ENCODER)
        if ranking is not None:
            shutil.copytree(ranking, staging / RANKING)
        checksums = _checksums(staging)
        manifest = Manifest(
            format=BUNDLE_FORMAT,
            bundle_version=_content_version(checksums, router, layout, default_budget_ms),
            dynens_version=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            dataset=dataset,
            layout=layout.to_dict(),
            router=router,
            members=tuple(members),
            default_budget_ms=default_budget_ms,
            checksums=checksums,
            metrics=None if metrics is None else dict(metrics),
        )
        text = manifest.model_dump_json(indent=2)
        (staging / MANIFEST).write_text(text + "\n", encoding="utf-8")
        staging.chmod(0o755)
        replace_directory(staging, directory)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return Bundle(directory, manifest, layout)


def load_bundle(directory: Path, *, verify: bool = True) -> Bundle:
    """Open the bundle in `directory`.

    Args:
        directory: a bundle, or a run directory that holds one as `bundle/`.
        verify: compare every file with its checksum (reads all bytes).

    Raises:
        BundleError: missing, incomplete, corrupt, or written by an incompatible version.
    """
    if not (directory / MANIFEST).is_file() and (directory / "bundle" / MANIFEST).is_file():
        directory = directory / "bundle"
    manifest = _read_manifest(directory)
    try:
        layout = FeatureLayout.from_dict(manifest.layout)
    except (LookupError, TypeError, AssertionError) as e:
        raise BundleError(
            f"{directory / MANIFEST} has a layout that cannot be read; "
            "write it again with `dynens export RUN`."
        ) from e
    for name in (STUDENT, ENSEMBLE):
        if name not in manifest.checksums:
            raise BundleError(
                f"{directory} lists no {name}; write it again with `dynens export RUN`."
            )
    for name, entry in manifest.checksums.items():
        _check_file(directory, name, entry, verify=verify)
    return Bundle(directory, manifest, layout)


def _read_manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"{directory} is neither a bundle nor a run directory with one "
            f"(no {MANIFEST}); give the --out directory of a finished `dynens fit`."
        )
    try:
        if path.stat().st_size > _MANIFEST_LIMIT_BYTES:
            raise BundleError(
                f"{path} is too large to be a manifest; write it again with `dynens export RUN`."
            )
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        if isinstance(e, BundleError):
            raise
        raise BundleError(
            f"{path} cannot be read as JSON; write it again with `dynens export RUN`."
        ) from e
    given = data.get("format") if isinstance(data, dict) else None
    if given != BUNDLE_FORMAT:
        raise BundleError(
            f"{path} has format {given!r} and this version reads {BUNDLE_FORMAT}; "
            "write it again with `dynens export RUN`."
        )
    try:
        return Manifest.model_validate(data)
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            f"{path}: {key}: {first['msg']}; write it again with `dynens export RUN`."
        ) from e


def _check_file(directory: Path, name: str, entry: FileEntry, *, verify: bool) -> None:
    path = directory / name
    if not path.resolve().is_relative_to(directory.resolve()):
        raise BundleError(f"{directory / MANIFEST} names {name!r} outside the bundle.")
    if not path.is_file():
        raise BundleError(
            f"{directory} lacks {name}; the bundle is incomplete; "
            "write it again with `dynens export RUN`."
        )
    if path.stat().st_size != entry.size_bytes or (verify and _entry(path) != entry):
        raise BundleError(
            f"{path} is corrupt, as its checksum says; write it again with `dynens export RUN`."
        )


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(sha256=digest, size_bytes=path.stat().st_size)


def _content_version(
    checksums: Mapping[str, FileEntry],
    router: RouterSpec,
    layout: FeatureLayout,
    default_budget_ms: float,
) -> str:
    content = {
        "files": {name: entry.sha256 for name, entry in checksums.items()},
        "router": router.model_dump_json(),
        "layout": layout.to_dict(),
        "default_budget_ms": default_budget_ms,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
