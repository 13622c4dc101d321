"""The protocols of a sink, the record that it takes, and its health."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import msgspec

from sidelight.record import Moment, Static

Record: TypeAlias = tuple[Static, Moment]
"""One event, span, or both, as it was read from the spool."""

_OUTAGE: Final = 5.0  # seconds


def acknowledging_sink(sinks: Collection[str]) -> str:
    """Name the sink whose acknowledgement counts: the store, or a stream without a store.

    Args:
        sinks: of a relay, or of the writer of a segment.
    """
    return "stream" if "stream" in sinks and "store" not in sinks else "store"


class Sink(Protocol):
    """A destination of records: the store, OTLP traces, OTLP logs, or a stream."""

    @property
    def name(self) -> str:
        """Name of the sink's cursor: "store", "traces", "logs" or "stream"."""
        ...

    def write(self, records: Sequence[Record], writer: dict[str, Any], /) -> None:
        """Take a whole batch.

        Args:
            records: the batch; an empty one only opens the sink.
            writer: describes the process that wrote the records (the segment's header).

        Raises:
            SinkUnavailableError: the sink took nothing; the same batch may be tried again.
            SinkRefusedError: the sink refuses some record and took nothing. Where the error names
                the refused ``records``, the sink took all others; it may name a loss ``reason``.
        """
        ...

    def sync(self) -> None:
        """Make the taken records survive a power loss; called from another thread than `write`.

        Raises:
            OSError: they might not survive.
        """
        ...

    def close(self) -> None:
        """Close connections; the next write opens new ones."""
        ...

    def disown(self, *, busy: bool) -> bool:
        """Drop what a forked child shares with its parent, without any effect on the parent.

        Args:
            busy: the parent forked in the middle of a write.

        Returns:
            False when the child must not use the sink.
        """
        ...


@runtime_checkable
class NotesProcesses(Sink, Protocol):
    """A sink that notes how far processes are, and which have ended."""

    def note_alive(self, writer: dict[str, Any], until: int, /) -> None:
        """Note that the sink has everything that a living process wrote until a time (ns).

        Raises:
            SinkUnavailableError: it was not noted; try again later.
        """
        ...

    def note_end(self, writer: dict[str, Any], /) -> None:
        """Note that a process has ended, and that the sink has everything that it wrote.

        Raises:
            SinkUnavailableError: it was not noted; try again later.
        """
        ...


@runtime_checkable
class DefersWork(Sink, Protocol):
    """A sink that leaves work for later writes, also of an empty batch."""

    @property
    def has_deferred_work(self) -> bool:
        """Whether a `write` of an empty batch has something to do."""
        ...


@runtime_checkable
class DropsErased(Sink, Protocol):
    """A sink that drops events whose artifact or organization was erased.

    Attributes:
        erased: the random bits of dropped events; the relay empties the list.
    """

    erased: list[int]


class Health(msgspec.Struct, repr_omit_defaults=True):
    """How a sink, or an outbox, is doing.

    Attributes:
        delivered: number of records that the sink took or set aside.
        events: how many of them were events; others are spans, losses, costs and signs of life.
        ended: number of processes whose end was noted: all of their records are delivered.
        failing_since: wall clock at the first failure of the current outage (s); None while the
            sink answers.
        problem: the latest failure in words.
    """

    delivered: int = 0
    events: int = 0
    ended: int = 0
    failing_since: float | None = None
    problem: str = ""
    _is_reported: bool = False

    def fail(self, problem: str) -> bool:
        """Note a failure; return True once in each outage, when it has lasted 5 s."""
        self.problem = problem
        now = time.time()
        if self.failing_since is None:
            self.failing_since, self._is_reported = now, False
        elif not self._is_reported and now - self.failing_since > _OUTAGE:
            self._is_reported = True
            return True
        return False

    def recover(self) -> None:
        """Note that the sink answers."""
        self.failing_since = None
