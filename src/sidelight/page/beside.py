"""The knowledge of the pages besides the store: findings, sinks, expectations, declared types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sidelight.record import Declared, Expectation
from sidelight.store import Mark


class Health(NamedTuple):
    """One finding of the doctor; see `sidelight doctor`.

    Attributes:
        check: the part that was checked.
        state: "ok", "note" or "wrong".
        message: the state in words.
        remedy: what helps.
    """

    check: str
    state: str
    message: str
    remedy: str


class Lag(NamedTuple):
    """How far one sink is with the spool of this machine.

    Attributes:
        sink: "store", "stream", "traces" or "logs".
        waiting: bytes that the sink has not taken.
        oldest_ns: when the oldest record occurred that begins a segment's rest; None where nothing
            waits, or where it cannot be read.
        is_wanted: whether an event, or for "traces" a span, may be among it; else only notes wait,
            such as that of a process's end.
    """

    sink: str
    waiting: int
    oldest_ns: int | None
    is_wanted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What the pages know besides the store. The functions are called anew for each page.

    Attributes:
        health: the findings of the doctor.
        lags: how far each sink is; None where the spool cannot be read.
        waiting: limits of the delivery, beyond which nothing is judged as overdue.
        expectations: of a map and of a catalogue.
        declared: the event types of a catalogue.
        trace_url: an address with ``{trace_id}``.
    """

    health: Callable[[], Sequence[Health]]
    lags: Callable[[], Sequence[Lag] | None]
    waiting: Callable[[], Sequence[Mark]]
    expectations: Sequence[Expectation] = ()
    declared: Sequence[Declared] = ()
    trace_url: str | None = None
