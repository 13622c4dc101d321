"""What a worker takes records to: see `sidelight.sinks` for those that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from sidelight.record import Moment, Static

Record: TypeAlias = tuple[Static, Moment]


class Sink(Protocol):
    """Where a worker takes records to (see `sidelight.sinks`)."""

    @property
    def name(self) -> str:
        """Of its cursor: "store", "traces", "logs" or "stream"."""
        ...

    def write(self, records: Sequence[Record], writer: dict[str, Any], /) -> None:
        """Take a batch, all of it, or raise."""
        ...

    def sync(self) -> None:
        """Make what was taken survive a power loss; another thread than the writing one asks.

        Raises:
            OSError: it would not.
        """
        ...

    def close(self) -> None:
        """Let go of connections; the next write makes new ones."""
        ...

    def disown(self, *, busy: bool) -> bool:
        """In a forked child: let go of what is shared with the parent, doing nothing to it.

        Args:
            busy: the parent forked in the middle of a write.

        Returns:
            False when this process must not use the sink.
        """
        ...


@dataclass(slots=True)
class Health:
    """How a sink is doing."""

    delivered: int = 0
    failing_since: float | None = None
    problem: str = ""
