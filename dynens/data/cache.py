"""Where fetched data lie, and writing there safely."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from dynens.errors import DataError

Progress = Callable[[str], None]
"""Told about each step of long work."""


def cache_folder() -> Path:
    """`$DYNENS_CACHE`, or `dynens` in the user's cache folder."""
    given = os.environ.get("DYNENS_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dynens"


def data_home() -> Path | None:
    """`$DYNENS_DATA_HOME`, a folder with local copies of datasets."""
    given = os.environ.get("DYNENS_DATA_HOME")
    return Path(given) if given else None


def remove_abandoned(folder: Path) -> None:
    """Remove temporary folders beside `folder` whose process is gone (it was killed)."""
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):
        owner = left.name.split(".")[-2]
        if owner.isdigit() and not _is_running(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """`folder`, built under a temporary name and renamed unless it is there and not empty.

    Raises:
        DataError: the folder cannot be written.
    """
    if _filled(folder):
        return folder
    remove_abandoned(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        build(temporary)
        if not _filled(folder):
            temporary.rename(folder)
    except OSError as e:
        raise DataError(
            f"{folder} cannot be written ({e.strerror or e}); name another folder with --dir or "
            "DYNENS_CACHE."
        ) from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
