"""Virtual environments of the systems that dynens is compared with, made when absent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(".cache/peers")


def peer_python(
    cache: Path,
    peer: str,
    others: Sequence[str] = (),
    *,
    locked: bool = True,
    alone: bool = False,
) -> Path:
    """The Python of a peer's own environment.

    Args:
        cache: folder of all environments.
        peer: requirement with its version, as in `mosec==0.9.8`.
        others: packages installed beside it.
        locked: hold whatever is in requirements/lock.txt at its version there.
        alone: install the peer without what it asks for, which `others` stand for.
    """
    folder = cache.resolve() / peer.replace("==", "-")
    python, stamp = folder / "bin" / "python", folder / ".ready"
    if not stamp.is_file():
        print(f"making {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        if locked:
            install += ["--constraint", str(ROOT / "requirements" / "lock.txt")]
        if alone:
            subprocess.run([*install, *others], check=True)
            subprocess.run([*install, "--no-deps", peer], check=True)
        else:
            subprocess.run([*install, peer, *others], check=True)
        stamp.touch()
    return python
