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
_ADDED: Final = "a relay added to it meanwhile; replay it again"
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

        A run takes minutes where a sink answers slowly. Meanwhile relays add to entries, and other
        commands delete entries. So each entry is read again before it is tried and before it is
        changed. What was added since then stays.

        Args:
            entries: id and entry, as they were listed.

        Raises:
            OSError: the quarantine cannot be written.
        """
        for identity, listed in entries:
            outcome = Outcome(identity)
            if listed is None:
                outcome.stays = "it cannot be replayed: its file is damaged"
            elif (entry := self._quarantine.read(identity)) is not None:
                self._try(identity, entry, outcome)
            yield outcome

    def _try(self, identity: str, entry: Entry, outcome: Outcome) -> None:
        found = _records(entry)
        if not found:
            outcome.stays = _NO_RECORD if entry.kind == "record" else _NOTHING_WHOLE
            return
        refusals: list[str] = []
        for sink in entry.sinks:
            try:
                self._deliver(sink, [each.record for each in found], entry)
            except _NotTakenError as error:
                outcome.stays = f"{outcome.stays}; {error}".removeprefix("; ")
                refusals += [error.refusal] if error.refusal else []
            else:
                outcome.delivered[sink] = len(found)
        self._quarantine.change(identity, lambda now: _left(now, entry, refusals, outcome))

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


def _left(now: Entry, tried: Entry, refusals: Sequence[str], outcome: Outcome) -> Entry | None:
    """Return what stays of an entry, and note in the outcome why; None where nothing stays.

    Args:
        now: the entry as it is now. A relay may have added sinks. It may also have merged later
            losses and costs into a ledger; then each sink lacks the ledger again.
        tried: the entry as the sinks got it.
        refusals: the answers of the sinks that will never take it.
        outcome: of the attempt.
    """
    has_more = now.is_refused_ledger and now.payload != tried.payload
    missing = tuple(sink for sink in now.sinks if has_more or sink not in outcome.delivered)
    if any(sink in outcome.delivered or sink not in tried.sinks for sink in missing):
        outcome.stays = f"{outcome.stays}; {_ADDED}".removeprefix("; ")
    payload = now.payload if missing else _without(now.payload, _records(now))
    if not payload.strip(b"\0"):
        return None
    outcome.stays = outcome.stays or _NOTHING_WHOLE
    problem = "; ".join(refusals) or (now.problem if missing else _NOTHING_WHOLE)
    return msgspec.structs.replace(now, sinks=missing, problem=problem, payload=payload)


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
