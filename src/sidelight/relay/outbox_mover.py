"""Moves the rows of one outbox into the spool, from where they go where all events go.

A row is deleted only when it is in the spool, and would survive a power cut there: delivered at
least once; the store knows an event that it has already by its id.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sidelight.exceptions import OutboxError, SpoolError
from sidelight.host import Loop, allocate_lock
from sidelight.record import frame
from sidelight.spool import Health, Spool

LIMIT: Final = 500
"""Rows that are moved at once."""
_ROUND: Final = 0.05  # seconds between two looks at what might have asked for one
_LAZIEST: Final = 1.0  # seconds between two looks at an outbox that is quiet
_OUTAGE: Final = 5.0  # seconds after which one that cannot be read is worth a log line

logger: Final = logging.getLogger("sidelight")


class Outbox(Protocol):
    """Where a mover takes rows from."""

    @property
    def shown(self) -> str:
        """Its URL as it may be shown to anybody."""
        ...

    def move(self, take: Callable[[Sequence[bytes]], None], limit: int, /) -> int:
        """Hand out committed rows and forget them; answers how many."""
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...

    def disown(self) -> None:
        """In a forked child: let go of it without a word to the parent's."""
        ...


@dataclass
class Mover:
    """Drains one outbox.

    Attributes:
        outbox: where the rows are.
        spool: where they go.
        ready: whether the store answers; else the rows are safer where they are.
        busy: whether it is inside the database's library.
        health: how it is doing; ``delivered`` counts rows.
    """

    outbox: Outbox
    spool: Spool
    ready: Callable[[], bool]
    busy: bool = False
    health: Health = field(default_factory=Health)
    _wake: Any = field(default_factory=allocate_lock)
    _asked: int = 0
    _answered: int = 0
    _told: bool = False

    def __post_init__(self) -> None:
        self.loop = Loop("sidelight-outbox", self.run)
        self._wake.acquire()

    def run(self) -> None:
        """Move until told to stop."""
        pause = _ROUND
        while not self.loop.halting:
            asked = self._asked
            found = self.step()
            if found is not None and found < LIMIT:
                self._answered = asked
            if not found or found < LIMIT:
                pause = _ROUND if found else min(2 * pause, _LAZIEST)
                self._rest(pause)

    def step(self) -> int | None:
        """Move one batch; answers how many rows there were, None where that is not known.

        What goes wrong is in `health`.
        """
        if not self.ready():
            return None
        self.busy = True
        try:
            found = self.outbox.move(self._take, LIMIT)
        except (OutboxError, SpoolError, OSError) as error:
            self._fails(error)
            return None
        except Exception as error:
            self._fails(error)
            logger.exception("sidelight: the mover of %s stumbled", self.outbox.shown)
            return None
        finally:
            self.busy = False
        self.health.failing_since = None
        self.health.delivered += found
        return found

    def ask(self) -> Callable[[], bool]:
        """Have it look now; the answer tells whether it has, and everything was moved."""
        self._asked += 1
        wanted = self._asked
        self._poke()
        return lambda: self._answered >= wanted

    def stop(self) -> None:
        """End after the current batch."""
        self.loop.halt()
        self._poke()

    def disown(self) -> None:
        """In a forked child: let go of what is the parent's."""
        if not self.busy:
            self.outbox.disown()

    def _poke(self) -> None:
        with contextlib.suppress(RuntimeError):  # awake already
            self._wake.release()

    def _rest(self, seconds: float) -> None:
        if not self.loop.halting:
            self._wake.acquire(timeout=seconds)

    def _take(self, records: Sequence[bytes]) -> None:
        """Put records into the spool so that a power cut would leave them there."""
        for record in records:
            framed = frame(record)
            try:
                self.spool.write(framed)
            except ValueError:
                self.spool.append(framed)
        self.spool.sync()

    @property
    def failing(self) -> bool:
        """Whether the last look has failed."""
        return self.health.failing_since is not None

    def _fails(self, error: Exception) -> None:
        self.health.problem = str(error)
        now = time.time()
        if self.health.failing_since is None:
            self.health.failing_since, self._told = now, False
        elif not self._told and now - self.health.failing_since > _OUTAGE:
            self._told = True
            logger.warning("sidelight: %s; its events wait there", error)
