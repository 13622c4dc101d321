"""Records made by hand, as a relay hands them to a sink, and back ends to put them into."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.support.postgres import new_database

from sidelight.exceptions import SinkUnavailableError
from sidelight.record.format import Moment, Static, decode, encode, encode_static
from sidelight.record.values import plain
from sidelight.store.sink import StoreSink

Record = tuple[Static, Moment]

NOON = 1_784_980_800_000_000_000
"""2026-07-25, 12:00:00 UTC, in nanoseconds."""
SECOND = 1_000_000_000
DAY = 86_400 * SECOND
TRACE = bytes(range(16))


def sqlite(directory: Path) -> str:
    """The URL of a SQLite store that is not there yet."""
    return f"sqlite:///{directory / 'events.db'}"


def postgresql(_: Path) -> str:
    """The URL of an empty database on a server of the session's; skips where there is none."""
    return new_database()


BACKENDS: dict[str, Callable[[Path], str]] = {"postgresql": postgresql, "sqlite": sqlite}
"""Name → the URL of an empty store. What is entered here runs the whole contract."""


def record(
    type: str | None = "made",
    at: int = NOON,
    *,
    artifact: Any = "a1",
    organization: Any = None,
    duration: int | None = None,
    outcome: str = "succeeded",
    mode: str = "scheduled",
    point: str = "shop:make",
    trace: bytes | None = None,
    span: int = 0,
    attributes: dict[str, Any] | None = None,
    error: tuple[str, str] | None = None,
    flags: int = 0,
    bits: int | None = None,
) -> Record:
    """A record whose event occurred ``at`` (ns), as it comes out of the spool."""
    moment = (
        at - (duration or 0),
        random.getrandbits(64) if bits is None else bits,
        plain(artifact),
        plain(organization),
        duration,
        trace,
        span,
        0,
        flags,
        attributes if outcome == "ledger" else plain(attributes),
        None if error is None else {"error": [*error, []]},
    )
    static = Static(type, point, mode, outcome, None)  # type: ignore[arg-type]
    return decode(encode_static(static) + encode(moment))


def ledger(losses: dict[str, int] | None = None, costs: dict[str, Any] | None = None) -> Record:
    """A process's account of itself."""
    told = {
        "losses": losses or {},
        "costs": costs or {},
        "problems": {reason: f"{reason}!" for reason in losses or ()},
    }
    return record(None, point="sidelight:ledger", outcome="ledger", artifact=None, attributes=told)


def store(url: str, *batches: Sequence[Record], writer: str = "p1") -> None:
    """Put batches of records into a store, each in a transaction of its own."""
    with closing(StoreSink(url)) as sink:
        for batch in batches:
            deliver(sink, batch, writer)


def deliver(sink: StoreSink, batch: Sequence[Record], writer: str = "p1") -> None:
    """As a relay does: again and again until the store has it."""
    until = time.monotonic() + 20
    while True:
        try:
            return sink.write(batch, {"instance": writer})
        except SinkUnavailableError:
            if time.monotonic() > until:
                raise
            time.sleep(random.random() * 0.02)


def batches_of(records: Iterable[Record], size: int) -> list[list[Record]]:
    """Cut into batches."""
    listed = list(records)
    return [listed[start : start + size] for start in range(0, len(listed), size)]
