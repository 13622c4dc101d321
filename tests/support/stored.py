"""Records made by hand, databases to store them in, and a check of what a store counts."""

from __future__ import annotations

import functools
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

from tests.support.postgres import database_of, new_database

from sidelight import Event, Store
from sidelight.exceptions import SinkUnavailableError
from sidelight.record.format import Static, decode, encode, encode_static
from sidelight.record.values import plain
from sidelight.spool import Record
from sidelight.store.engine import connect
from sidelight.store.sink import StoreSink

NOON = 1_784_980_800_000_000_000
"""2026-07-25, 12:00:00 UTC, in nanoseconds."""
SECOND = 1_000_000_000
DAY = 86_400 * SECOND
TRACE = bytes(range(16))


def sqlite(directory: Path) -> str:
    """The URL of a SQLite store that does not exist yet."""
    return f"sqlite:///{directory / 'events.db'}"


def postgresql(_: Path) -> str:
    """The URL of an empty database on the session's server; skips where there is no server."""
    return new_database()


BACKENDS: dict[str, Callable[[Path], str]] = {"postgresql": postgresql, "sqlite": sqlite}
"""Name → the URL of an empty store. Every database in this table runs the whole contract."""


def prepared(backend: str, directory: Path) -> str:
    """The URL of a store that is there and holds nothing: a copy, because tests need hundreds."""
    if backend == "postgresql":
        return new_database(template=database_of(_create))
    file = directory / "events.db"
    file.touch(0o600)
    file.write_bytes(_content_of_sqlite())
    return sqlite(directory)


@functools.cache
def _content_of_sqlite() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        _create(sqlite(Path(directory)))
        return Path(directory, "events.db").read_bytes()


def _create(url: str) -> None:
    connect(url, create=True).dispose()


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


def ledger(
    losses: dict[str, int] | None = None, costs: dict[str, Any] | None = None, at: int = NOON
) -> Record:
    """A process's ledger of losses and costs."""
    told = {
        "losses": losses or {},
        "costs": costs or {},
        "problems": {reason: f"{reason}!" for reason in losses or ()},
    }
    about = "sidelight:ledger"
    return record(None, at, point=about, outcome="ledger", artifact=None, attributes=told)


def store(url: str, *batches: Sequence[Record], writer: str = "p1") -> None:
    """Put batches of records into a store, each in a separate transaction."""
    with closing(StoreSink(url)) as sink:
        for batch in batches:
            deliver(sink, batch, writer)


def deliver(sink: Any, batch: Sequence[Record], writer: str | dict[str, Any] = "p1") -> Any:
    """Write as a relay does: retry until the sink has the batch. Return the sink's answer."""
    until = time.monotonic() + 60
    header = {"instance": writer} if isinstance(writer, str) else writer
    while True:
        try:
            return sink.write(batch, header)
        except SinkUnavailableError:
            if time.monotonic() > until:
                raise
            time.sleep(random.random() * 0.02)


def batches_of(records: Iterable[Record], size: int) -> list[list[Record]]:
    """Cut into batches."""
    listed = list(records)
    return [listed[start : start + size] for start in range(0, len(listed), size)]


def together(*jobs: Callable[[], Any]) -> None:
    """Run the jobs in threads at the same time; raise what the first of them raises."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        for running in [pool.submit(job) for job in jobs]:
            running.result()


def exact(url: str, kept_since: date | None = None) -> list[Event]:
    """The events of a store, in order, after a check that every counter agrees with them.

    Args:
        url: the store.
        kept_since: the first day that is kept; counters and artifacts may know more before it.
    """
    with Store(url) as opened:
        events, size = list(opened.events()), opened.size()
        counts, artifacts = opened.counts(), opened.artifacts()
        assert opened.kept_since() == kept_since
    assert size == len(events)
    places = [(event.occurred_ns, event.event_id) for event in events]
    assert places == sorted(set(places))
    assert kept_since is None or all(e.occurred_at.date() >= kept_since for e in events)
    assert {
        (c.organization_id, c.type, c.day): c.count
        for c in counts
        if kept_since is None or c.day >= kept_since
    } == Counter((e.organization_id, e.type, e.occurred_at.date()) for e in events)
    own: dict[str, list[Event]] = {}
    for event in events:
        if event.artifact_id is not None:
            own.setdefault(event.artifact_id, []).append(event)
    assert {artifact.artifact_id for artifact in artifacts} == own.keys()
    for artifact in artifacts:
        mine = own[artifact.artifact_id]
        known = (artifact.first_event_at, artifact.last_event_at, artifact.events)
        if kept_since is None:
            assert known == (mine[0].occurred_at, mine[-1].occurred_at, len(mine))
        assert known[0] <= mine[0].occurred_at
        assert known[1] >= mine[-1].occurred_at
        assert known[2] >= len(mine)
    return events
