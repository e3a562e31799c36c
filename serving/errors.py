"""What the HTTP side answers when it does not answer scores."""

from __future__ import annotations


class RequestError(Exception):
    """A request that gets an error status and one sentence.

    Args:
        status: HTTP status code.
        message: the sentence; it may quote the request, never the server's files or code.
        reason: label under which the metrics count it.
        header: one that goes with it, such as Retry-After, by name and value.
    """

    def __init__(
        self, status: int, message: str, *, reason: str = "", header: tuple[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason or str(status)
        self.header = header


class ClientGoneError(Exception):
    """The client disconnected; nobody is left to answer."""


def bad_request(message: str) -> RequestError:
    """A 400 with one sentence."""
    return RequestError(400, message, reason="bad_request")
