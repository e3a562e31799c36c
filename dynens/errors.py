"""The errors dynens raises on purpose.

Every message says what was given, which rule it breaks and what to do about it, in one sentence.
"""

import contextlib
from collections.abc import Iterator


class DynensError(Exception):
    """Base of every deliberate error; `exit_code` is what the command line returns for it."""

    exit_code = 1


class BadInputError(DynensError, ValueError):
    """What the user gave (a file, an option, a request) breaks a rule."""

    exit_code = 2


class ConfigError(BadInputError):
    """A configuration value is unknown, out of range or contradicts another one."""


class DataError(BadInputError):
    """A table or file cannot be used as training, evaluation or prediction data."""


@contextlib.contextmanager
def about(what: str) -> Iterator[None]:
    """Put the file or column that a bad table's sentence is about in front of it."""
    try:
        yield
    except DataError as e:
        raise DataError(f"{what}: {e}") from e


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class SchemaError(BadInputError):
    """A schema names something that does not exist or contradicts itself."""


class BundleError(BadInputError):
    """A run directory or bundle is missing, incomplete, corrupt or incompatible."""


class TrainingError(DynensError, RuntimeError):
    """A stage of training failed for a reason that is not the user's input."""


class StoppedError(DynensError):
    """A command was stopped (Ctrl-C or SIGTERM)."""

    exit_code = 130


class ServingError(DynensError, RuntimeError):
    """The server could not start or stop as asked."""
