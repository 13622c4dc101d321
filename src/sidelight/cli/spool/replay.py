"""Deliver quarantined entries again, to the sinks that have not taken them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from sidelight.exceptions import MessageError, SinkRefusedError, SinkUnavailableError
from sidelight.record import FRAME, decode, salvage
from sidelight.spool import Entry, Quarantine, Record, Sink
from sidelight.stream import Event, read_message

_PAUSES: Final = (0.05, 0.25, 0.5)  # seconds between attempts on a sink that does not answer
_NO_RECORD: Final = "it cannot be replayed: it is no record that this sidelight can read"
_NOTHING_WHOLE: Final = "it cannot be replayed: these bytes hold no whole record"


class _NotTakenError(Exception):
    """A sink has not taken all records.

    Attributes:
        refusal: the sink's answer, where the sink will never take them; else "".
    """

    def __init__(self, why: str = "", refusal: str = "") -> None:
        super().__init__(why or f"refused again: {refusal}")
        self.refusal = refusal


class _Whole(NamedTuple):
    """A whole record, and where it begins and ends in the payload of its entry."""

    start: int
    end: int
    record: Record


@dataclass(slots=True)
class Outcome:
    """The outcome for one entry.

    Attributes:
        delivered: the number of records that each sink took.
        stays: why the entry stays in the quarantine; "" where it was removed.
    """

    identity: str
    delivered: dict[str, int] = field(default_factory=dict)
    stays: str = ""


class Replay:
    """One attempt on entries of a quarantine.

    The store ignores an event that it already holds, because it knows each event by its id.

    Args:
        quarantine: that holds the entries.
        sinks: the sinks that are configured, by name.
        is_for_this_store: tells from an entry's writer whether the entry belongs to the store
            among the sinks.
    """

    def __init__(
        self,
        quarantine: Quarantine,
        sinks: Mapping[str, Sink],
        is_for_this_store: Callable[[Mapping[str, Any]], bool],
    ) -> None:
        self._quarantine = quarantine
        self._sinks = sinks
        self._is_for_this_store = is_for_this_store
        self._unavailable: dict[str, str] = {}

    def run(self, entries: Iterable[tuple[str, Entry | None]]) -> Iterator[Outcome]:
        """Try each entry, and remove what was delivered from the quarantine.

        Raises:
            OSError: the quarantine cannot be written.
        """
        for identity, entry in entries:
            outcome = Outcome(identity)
            if entry is None:
                outcome.stays = "it cannot be replayed: its file is damaged"
            else:
                self._try(identity, entry, outcome)
            yield outcome

    def _try(self, identity: str, entry: Entry, outcome: Outcome) -> None:
        found = _records(entry)
        if not found:
            outcome.stays = _NO_RECORD if entry.kind == "record" else _NOTHING_WHOLE
            return
        missing, refusals = [], []
        for sink in entry.sinks:
            try:
                self._deliver(sink, [each.record for each in found], entry)
            except _NotTakenError as error:
                missing.append(sink)
                outcome.stays = f"{outcome.stays}; {error}".removeprefix("; ")
                refusals += [error.refusal] if error.refusal else []
            else:
                outcome.delivered[sink] = len(found)
        left = entry.payload if missing else _without(entry.payload, found)
        if not left.strip(b"\0"):
            self._quarantine.discard(identity)
            return
        outcome.stays = outcome.stays or _NOTHING_WHOLE
        problem = "; ".join(refusals) or (entry.problem if missing else _NOTHING_WHOLE)
        changed = msgspec.structs.replace(
            entry, sinks=tuple(missing), problem=problem, payload=left
        )
        if changed != entry:
            self._quarantine.replace(identity, changed)

    def _deliver(self, name: str, records: Sequence[Record], entry: Entry) -> None:
        """Write records to a sink.

        Raises:
            _NotTakenError: the sink has not taken all of them.
        """
        sink = self._sinks.get(name)
        if sink is None:
            raise _NotTakenError(
                f"for {name}; name the endpoint with --otlp or OTEL_EXPORTER_OTLP_ENDPOINT"
            )
        if name == "store" and not self._is_for_this_store(entry.writer):
            url = entry.writer.get("store")
            raise _NotTakenError(f"for the store {url}; name that with --store")
        if name in self._unavailable:
            raise _NotTakenError(self._unavailable[name])
        try:
            for record in records:
                _write(sink, [record], entry.writer)
        except SinkUnavailableError as error:
            self._unavailable[name] = str(error)
            raise _NotTakenError(str(error)) from error
        except SinkRefusedError as error:
            raise _NotTakenError(refusal=str(error.facts["problem"])) from error
        except Exception as error:  # the sink fails on the record in a way of its own
            raise _NotTakenError(refusal=repr(error)) from error


def _records(entry: Entry) -> list[_Whole]:
    """Return the records of an entry: the entry itself, or the whole ones in a damaged stretch."""
    places = [(0, len(entry.payload))]
    head = 0
    if entry.kind == "stretch":
        places, head = [*salvage(entry.payload)], FRAME.size
    found = []
    for start, end in places:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            found.append(_Whole(start - head, end, decode(entry.payload[start:end])))
    if not found and (message := _event_of(entry.payload)) is not None:
        found.append(_Whole(0, len(entry.payload), message))
    return found


def _event_of(payload: bytes) -> Record | None:
    """Return the event of a message of a stream that an older sidelight could not read."""
    try:
        _, value, headers = _message_decoder.decode(payload)
        read = read_message(value, headers)
    except (msgspec.DecodeError, UnicodeDecodeError, MessageError):
        return None
    return read.record if isinstance(read, Event) else None


_message_decoder: Final = msgspec.msgpack.Decoder(
    tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]
)


def _without(payload: bytes, found: Sequence[_Whole]) -> bytes:
    """Return a payload without the given records and their frame heads."""
    left, at = b"", 0
    for each in found:
        left += payload[at : each.start]
        at = each.end
    return left + payload[at:]


def _write(sink: Sink, records: Sequence[Record], writer: dict[str, Any]) -> None:
    for pause in _PAUSES:
        try:
            return sink.write(records, writer)
        except SinkUnavailableError:
            time.sleep(pause)
    return sink.write(records, writer)
