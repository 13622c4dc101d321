"""The protocol of an exporter: it sends encoded requests of one signal."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, TypeAlias

SignalName: TypeAlias = Literal["traces", "logs"]


class Rejected(NamedTuple):
    """How many items of a request the endpoint rejected (a partial success), and why."""

    number: int = 0
    why: str = ""


class ExportError(Exception):
    """The endpoint has not accepted a request.

    Attributes:
        kind: "refused": it will never accept the request. "failed": an internal error, perhaps
            because of the request. "unsupported": it does not know the signal. "unavailable": a
            retry may succeed.
        retry_after: seconds before the endpoint wants a retry.
    """

    def __init__(self, kind: str, problem: str, retry_after: float = 0.0) -> None:
        super().__init__(problem)
        self.kind = kind
        self.retry_after = retry_after


class Exporter(Protocol):
    """Sends requests of one signal to one endpoint."""

    def send(self, request: bytes, /) -> Rejected:
        """Send an encoded request; an empty one probes the endpoint.

        Raises:
            ExportError: the endpoint has not accepted it.
        """
        ...

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        ...
