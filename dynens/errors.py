"""The errors dynens raises on purpose.

Every message says what was given, which rule it breaks and what to do about it, in one sentence.
"""

import contextlib
import re
from collections.abc import Iterator

# What pydantic says a value should be, in words that need no Python.
_IN_WORDS = (
    ("^Value error, ", ""),
    (", (unable to|got a number) .*", ""),
    ("^(Input|Tuple|String) should ", "must "),
    ("^Keys should be strings", "must have texts for keys"),
    (" after validation, not [0-9]+", ""),
    ("a valid integer", "a whole number"),
    ("a valid number", "a number"),
    ("a valid boolean", "true or false"),
    ("a valid string", "a text"),
    ("a valid tuple", "a list, such as [a, b]"),
    ("a valid dictionary( or instance of [A-Za-z]+)?", "a section with keys of its own"),
    ("greater than or equal to", "at least"),
    ("less than or equal to", "at most"),
)


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


def briefly(error: BaseException) -> str:
    """What an error says, on one line and without the traceback that Ray puts into it."""
    words = str(error).partition("Traceback (most recent")[0].split()
    return " ".join(words)[:300].rstrip(".") or type(error).__name__


def rule_of(message: str) -> str:
    """The rule that a value breaks, from pydantic's message about it."""
    for pattern, words in _IN_WORDS:
        message = re.sub(pattern, words, message)
    return message.rstrip(".")


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
