#!/bin/sh
# Create the virtual environment $VENV with $PYTHON, or say in one sentence why that cannot be done.
set -eu
python="${PYTHON:-python3.11}"
if ! command -v "$python" >/dev/null 2>&1; then
    python=python3
fi
if ! command -v "$python" >/dev/null 2>&1; then
    echo "setup: Python 3.11 was not found; install it (apt-get install python3 python3-venv) or pass PYTHON=/path/to/python3.11." >&2
    exit 1
fi
version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
if [ "$version" != "3.11" ]; then
    echo "setup: $python is Python $version and dynens needs 3.11; pass PYTHON=/path/to/python3.11." >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    echo "setup: $python cannot make virtual environments; install python3-venv (apt-get install python3-venv)." >&2
    exit 1
fi
if [ ! -x "$VENV/bin/python" ] || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "setup: creating $VENV with $python"
    rm -rf "$VENV"
    "$python" -m venv "$VENV"
fi
