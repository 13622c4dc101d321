"""Sort out what a batch holds: the events, ledgers and calls of each of its processes."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from sidelight.record import CALL, Moment, Static
from sidelight.spool import Record
from sidelight.store.rows import Draft, Ledger, drafts_of
from sidelight.store.statements import Delivery

Writer: TypeAlias = Mapping[str, Any]
"""The header of a process's segments, or what a message of a stream says of the process."""
Part: TypeAlias = tuple[Sequence[Record], Writer]
"""The records of one process in a batch."""

_ENDS: Final = frozenset({"succeeded", "failed", "closed"})
_time_order: Final = itemgetter(0, 1)


class Contents(NamedTuple):
    """What a batch holds of one process.

    Attributes:
        writer: describes the process.
        drafts: its events.
        ledgers: its losses, costs and signs of life.
        starts: calls that have started: id of the event → call.
        ended: calls that have ended.
        in_order: the start of a call came before its end.
    """

    writer: Writer
    drafts: Sequence[Draft]
    ledgers: Sequence[Ledger]
    starts: Mapping[str, str]
    ended: Collection[str]
    in_order: bool

    def __bool__(self) -> bool:
        """Return whether it holds anything."""
        return bool(self.drafts or self.ledgers or self.ended)


def contents_of(records: Sequence[Record], writer: Writer, *, in_order: bool = True) -> Contents:
    """Sort out the records of one process.

    Raises:
        msgspec.ValidationError: a ledger does not have the shape of one.
    """
    drafts, ledgers = drafts_of(records)
    calls = [record for record in records if record[1].flags & CALL]  # few
    ended = {call_of(moment) for static, moment in calls if ends_call(static, moment)}
    starts = {
        key: call_of(moment)
        for _, key, _, _, static, moment in (drafts if calls else ())
        if moment.flags & CALL and static.outcome == "started" and moment.trace is not None
    }
    return Contents(writer, drafts, ledgers, starts, ended, in_order)


def ends_call(static: Static, moment: Moment) -> bool:
    """Return whether a record is the end of a call whose start is an event."""
    return bool(moment.flags & CALL and static.outcome in _ENDS and moment.trace is not None)


def call_of(moment: Moment) -> str:
    """Return the key of a call: its trace and its span."""
    trace = moment.trace or b""
    return f"{trace.hex()}{moment.span_id:016x}"


def by_process(records: Iterable[tuple[Record, Writer]]) -> list[Part]:
    """Group records by their writers; those of one process have the same object.

    The processes are sorted, because two transactions that lock their rows in different orders
    deadlock.
    """
    parts: dict[int, tuple[list[Record], Writer]] = {}
    for record, writer in records:
        part = parts.get(id(writer))
        if part is None:
            part = parts[id(writer)] = ([], writer)
        part[0].append(record)
    return sorted(parts.values(), key=lambda part: str(part[1].get("instance", "")))


def drafts_in_order(contents: Sequence[Contents]) -> Sequence[Draft]:
    """Return the events of all processes, in the order of time."""
    if len(contents) == 1:
        return contents[0].drafts
    return sorted(chain.from_iterable(each.drafts for each in contents), key=_time_order)


def deliveries_of(contents: Iterable[Contents], recorded_at: int) -> list[Delivery]:
    """Return the processes whose events are among the contents, as far as they are known.

    Args:
        contents: of a transaction.
        recorded_at: of the first process; each has its own, so that its events can be found.
    """
    return [
        Delivery(recorded_at + place, number_of(str(each.writer["instance"])))
        for place, each in enumerate(contents)
        if each.drafts and "instance" in each.writer
    ]


def recordings_of(contents: Iterable[Contents], recorded_at: int) -> dict[str, int]:
    """Event id → ``recorded_at`` of its process: see `deliveries_of`."""
    return {
        draft[1]: recorded_at + place
        for place, each in enumerate(contents)
        for draft in each.drafts
    }


@functools.lru_cache(maxsize=1024)
def number_of(instance: str) -> int:
    """Return the number that stands for a process in `deliveries` and `open_calls`."""
    digest = hashlib.blake2b(instance.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
