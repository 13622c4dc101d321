"""Moves the rows of one outbox into the spool, where they follow the way of all events.

A row is deleted only after its record is in the spool and survives a power loss. So each row is
moved at least once; the store recognizes an event that it has by its id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from sidelight.exceptions import OutboxError, SpoolError
from sidelight.host import Loop, log_failure, log_warning
from sidelight.record import frame
from sidelight.relay.refusals import keep_entry
from sidelight.spool import Entry, Health, Spool

LIMIT: Final = 500
"""Rows that are moved at once."""
_ROUND: Final = 0.05  # seconds between two looks at an outbox that has rows
_LONGEST_PAUSE: Final = 1.0  # seconds between two looks at an empty outbox


class Outbox(Protocol):
    """A table of events that were written in the transactions of a business database."""

    @property
    def shown(self) -> str:
        """The database's URL without secrets."""
        ...

    def move(self, take: Callable[[Sequence[bytes]], None], limit: int, /) -> int | None:
        """Hand up to ``limit`` committed rows to ``take``, delete them, and return their number.

        None says that rows are left, which another relay is moving at this moment.
        """
        ...

    def close(self) -> None:
        """Close the connection to the database."""
        ...

    def disown(self) -> None:
        """Drop the connection in a forked child, without any effect on the parent."""
        ...


class Mover(msgspec.Struct, eq=False, dict=True):
    """Drains one outbox.

    Attributes:
        outbox: the source.
        spool: the destination.
        ready: whether the store answers; else the rows are safer in the outbox.
        busy: the mover is inside the database's library.
        ending: the mover will not start again; it closes the outbox when it ends.
        health: how the outbox is doing; ``delivered`` counts rows.
        loop: the mover's thread.
    """

    outbox: Outbox
    spool: Spool
    ready: Callable[[], bool]
    busy: bool = False
    ending: bool = False
    health: Health = msgspec.field(default_factory=Health)
    _requested: int = 0
    _completed: int = 0

    def __post_init__(self) -> None:
        self.loop = Loop("sidelight-outbox", self.run)

    def run(self) -> None:
        """Move rows until told to stop."""
        pause = _ROUND
        while not self.loop.halting:
            requested = self._requested
            moved = self.step()
            if moved == 0:  # else rows may be left: another relay may have locked some of them
                self._completed = requested
            pause = _ROUND if moved else min(2 * pause, _LONGEST_PAUSE)
            is_asked = bool(moved) and self._completed < self._requested
            if not (moved == LIMIT or is_asked or self.loop.halting):
                self.loop.pause(pause)
        if self.ending:
            self.outbox.close()

    def step(self) -> int | None:
        """Move one batch; return the number of rows, or None where it is unknown.

        An error is noted in `health`.
        """
        if not self.ready():
            return None
        self.busy = True
        try:
            moved = self.outbox.move(self._take, LIMIT)
        except (OutboxError, SpoolError, OSError) as error:
            self._note_failure(error)
            if moved := _moved_before(error):
                self.health.delivered += moved
                self.health.events += moved
                return moved
            return None if _may_hold_events(error) else 0
        except Exception as error:  # noqa: BLE001  # logged
            self._note_failure(error)
            log_failure("sidelight: the mover of %s failed, and tries again", self.outbox.shown)
            return None
        finally:
            self.busy = False
        self.health.recover()
        self.health.delivered += moved or 0
        self.health.events += moved or 0
        return moved

    def request(self) -> Callable[[], bool]:
        """Make the mover look now; the result tells whether every row has been moved since."""
        self._requested += 1
        wanted = self._requested
        self.loop.wake()
        return lambda: self._completed >= wanted

    def disown(self) -> None:
        """Drop what a forked child shares with its parent."""
        if not self.busy:
            self.outbox.disown()

    def _take(self, records: Sequence[bytes]) -> None:
        """Write records into the spool, and make them survive a power loss.

        A spool that cannot be synced gets none, because it would get the same ones each time.
        """
        self.spool.sync()
        for record in records:
            try:
                framed = frame(record)
            except (TypeError, ValueError) as error:
                self._set_aside(record, str(error))
                continue
            try:
                self.spool.write(framed)
            except ValueError:
                self.spool.append(framed)
        self.spool.sync()

    def _set_aside(self, record: object, problem: str) -> None:
        """Keep what another program has put into the table in the quarantine."""
        entry = Entry(
            kind="record",
            reason="unreadable record",
            problem=f"{self.outbox.shown}: {problem}",
            refused_by=None,
            sinks=tuple(self.spool.meta.get("sinks", ("store",))),
            at=time.time_ns(),
            writer=dict(self.spool.meta),
            segment="",
            offset=None,
            payload=_bytes_of(record),
        )
        keep_entry(self.spool, self.spool.count, entry)

    @property
    def failing(self) -> bool:
        """Whether the last look at the outbox failed."""
        return self.health.failing_since is not None

    def _note_failure(self, error: Exception) -> None:
        if self.health.fail(str(error)):
            waits = "; its events wait in the outbox" if _may_hold_events(error) else ""
            log_warning("sidelight: %s%s", error, waits)


def _bytes_of(record: object) -> bytes:
    if isinstance(record, bytes | bytearray | memoryview):
        return bytes(record)
    return str(record).encode(errors="replace")


def _moved_before(error: Exception) -> int:
    """Return the number of rows that were moved although others could not be."""
    moved = error.facts.get("moved") if isinstance(error, OutboxError) else None
    return moved if isinstance(moved, int) else 0


def _may_hold_events(error: Exception) -> bool:
    """Return whether rows may wait; there are none where the table is missing."""
    return not isinstance(error, OutboxError) or bool(error.facts.get("holds_events", True))
