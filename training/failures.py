"""What a stage that cannot go on says."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from dynens.errors import BadInputError, DynensError, TrainingError, causes

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_MEMORY = "can't allocate memory"  # torch's allocator raises a plain RuntimeError
LESS_MEMORY = (
    "lower ray.num_cpus (fewer learners side by side) and continue with --resume, or start anew "
    "with a smaller batch size"
)


@contextlib.contextmanager
def explained(stage: str, root: Path) -> Iterator[None]:
    """Turn a full disk, memory that ran out or missing rights into one sentence.

    What was finished is kept.

    Raises:
        TrainingError: disk or memory did not suffice inside the block.
        BadInputError: a file or folder must not be written or read.
    """
    try:
        yield
    except DynensError:
        raise
    except Exception as e:
        chain = list(causes(e))
        if any(isinstance(c, OSError) and c.errno in _DISK_FULL for c in chain):
            raise TrainingError(
                f"stage {stage}: the disk of {root} is full; make room and continue with --resume."
            ) from e
        denied = [c for c in chain if isinstance(c, OSError) and c.errno in _DENIED]
        if denied:
            raise BadInputError(
                f"stage {stage}: {denied[0].filename or root} cannot be used "
                f"({denied[0].strerror}); correct its rights and continue with --resume."
            ) from e
        if any(isinstance(c, MemoryError) or _NO_MEMORY in str(c) for c in chain):
            raise TrainingError(f"stage {stage} ran out of memory; {LESS_MEMORY}.") from e
        raise
