"""What encoded data were made from, as one hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dynens.data.reading.sources import expand, partitions_of
from dynens.errors import DataError
from dynens.schema import DatasetConfig

# Of the encoded data.
FORMAT = 4
_HASH_BYTES = 8 << 20


def fingerprint(dataset: DatasetConfig, seed: int) -> str:
    """A hash of everything the encoded data depends on, the files' contents included.

    What is at its default says nothing, so that settings of later versions leave it as it is.
    """
    digest = hashlib.blake2b(digest_size=16)
    described = dataset.model_dump_json(exclude_defaults=True)
    digest.update(f"{FORMAT} {seed} {described}".encode())
    names = [name for files in dataset.parts for name in files]
    names += [name for entity in dataset.entities for name in entity.files]
    for name in names:
        paths = expand([name])
        if paths != [Path(name)]:  # of a pattern no setting says where its files end
            digest.update(f"{len(paths)} {[partitions_of(path) for path in paths]}".encode())
        for path in paths:
            _add_content(digest, path)
    return digest.hexdigest()


def _add_content(digest: hashlib.blake2b, path: Path) -> None:
    try:
        with path.open("rb") as file:
            while block := file.read(_HASH_BYTES):
                digest.update(block)
    except OSError as e:
        raise DataError(f"{path} cannot be read ({e.strerror}); give a readable table.") from e
    digest.update(b"\0")
