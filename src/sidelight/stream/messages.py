"""Events as CloudEvents in Kafka messages.

The form is CloudEvents 1.0.2 with its Kafka protocol binding. In binary mode the attributes of the
event are headers, and the value is the payload. In structured mode the value is the whole event.
The value is never empty, because compaction deletes the key of an empty one. A message has a key
only where the event has an artifact, because partitioners put all empty keys into one partition.
"""

from __future__ import annotations

import functools
import time
from binascii import hexlify
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote

import msgspec

from sidelight.host import imported
from sidelight.record import (
    CALL,
    RANDOM,
    SAMPLED,
    LedgerPart,
    Static,
    event_id_ascii,
    ledger_part,
    random_bits,
    to_json,
    w3c_flags,
)
from sidelight.spool import Record
from sidelight.store import attributes_text, call_of, id_text

if TYPE_CHECKING:
    from sidelight.record import Declared

Headers: TypeAlias = list[tuple[str, bytes]]

JSON: Final = b"application/json"
STRUCTURED: Final = b"application/cloudevents+json; charset=UTF-8"
CONTENT_TYPE: Final = "content-type"
PROCESS_TYPE: Final = "sidelight.process"
"""The type of a message that tells of a process, and is no event of it."""
SECOND: Final = 1_000_000_000  # ns
_TRACE_FLAGS: Final = SAMPLED | RANDOM
_W3C_FLAGS: Final = tuple(b"-%02x" % w3c_flags(flags) for flags in range(_TRACE_FLAGS + 1))
_MOST_HEADS: Final = 10_000


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a topic."""

    key: bytes | None
    value: bytes
    headers: Headers


class ProcessNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message tells of a process, besides its events.

    It is true as soon as all that was sent before it has been stored.

    Attributes:
        pid: of the process.
        resource: of the process, by OpenTelemetry's names.
        at: when the process has told it, or until when all that it wrote was sent (ns).
        ledger: losses, costs or a sign of life.
        ended_calls: calls that have ended: trace and span.
        state: "alive", told by the relay; "died": it has told no end, and its lock is free.
    """

    pid: int
    resource: dict[str, Any]
    at: int
    ledger: LedgerPart | None = None
    ended_calls: list[str] = []
    state: str = ""


class MessageWriter:
    """Writes the records of one process as messages.

    Args:
        writer: describes the process: the header of its segments.
        structured: write the whole event into the value (structured mode).

    Attributes:
        process: the given ``writer``.
    """

    def __init__(self, writer: Mapping[str, Any], *, structured: bool = False) -> None:
        self.process = writer
        resource = writer.get("resource")
        self._resource: dict[str, Any] = resource if isinstance(resource, dict) else {}
        pid = writer.get("pid")
        self._pid = pid if isinstance(pid, int) else 0
        self._made: Callable[[bytes | None, bytes, Headers], Message]
        self._made = _structured if structured else Message
        self._heads: dict[int, tuple[Static, Headers]] = {}
        self._declared: dict[str, Declared] = {}
        service = str(self._resource.get("service.name", ""))
        self._common: Headers = [
            (CONTENT_TYPE, JSON),
            ("ce_specversion", b"1.0"),
            ("ce_source", (quote(service, safe="/:@!$&'()*+,;=~") or "unknown_service").encode()),
        ]
        instance = str(writer.get("instance", "")).encode()
        self._key = instance or None
        if instance:
            self._common.append(("ce_instance", instance))
        if host := self._resource.get("host.name"):
            self._common.append(("ce_host", id_text(host).encode()))
        self.look_at_catalogue()

    def look_at_catalogue(self) -> None:
        """Name the schemas of the event types that this process declares now."""
        # Not imported for this, because pydantic is slow to import.
        module = imported("sidelight.record.event_types")
        declared = {} if module is None else {each.name: each for each in module.catalogue}
        if declared != self._declared:
            self._declared = declared
            self._heads.clear()

    def write(self, record: Record) -> Message:
        """Write an event, or a part of a ledger."""
        static, moment = record
        if static.type is None:
            return self.note(moment.time, moment.random, ledger=ledger_part(moment))
        known = self._heads.get(id(static))
        head = known[1] if known is not None and known[0] is static else self._head(static)
        duration = moment.duration
        occurred = moment.time + (duration or 0)
        second, rest = divmod(occurred, SECOND)
        headers = [
            *head,
            ("ce_id", event_id_ascii(occurred, moment.random)),
            ("ce_time", _time_format(second) % rest),
        ]
        add = headers.append
        key = None
        if (artifact := moment.artifact_id) is not None:
            key = (_text if type(artifact) is str else _id_of)(artifact) or None
            # A subject is not empty in CloudEvents.
            add(("ce_artifact", b"") if key is None else ("ce_subject", key))
        if (organization := moment.organization_id) is not None:
            text = (_text if type(organization) is str else _id_of)(organization)
            add(("ce_organization", text))
        if duration is not None:
            add(("ce_duration", b"%d" % duration))
        elif moment.flags & CALL and static.outcome == "started":
            add(("ce_call", b"open"))
        if (trace := moment.trace) is not None:
            flags = _W3C_FLAGS[moment.flags & _TRACE_FLAGS]
            parent = b"00-%b-%016x%b" % (hexlify(trace), moment.span_id, flags)
            add(("ce_traceparent", parent))
            if moment.span_id:
                add(("traceparent", parent))
        return self._made(key, attributes_text(moment).encode(), headers)

    def write_ends(self, records: Sequence[Record]) -> Message:
        """Write which calls have ended."""
        moments = [moment for _, moment in records]
        return self.note(
            max(moment.time for moment in moments),
            moments[0].random,
            ended_calls=[call_of(moment) for moment in moments],
        )

    def note(self, at: int, random: int | None = None, **content: Any) -> Message:
        """Write what is known of the process. Its notes stay in one partition, in their order.

        Args:
            at: when (ns).
            random: the random bits of the message's id; None makes new ones.
            content: further fields of `ProcessNote`.
        """
        note = ProcessNote(self._pid, self._resource, at, **content)
        second, rest = divmod(at, SECOND)
        bits = random_bits(64) if random is None else random
        headers = [
            *self._common,
            ("ce_type", PROCESS_TYPE.encode()),
            ("ce_id", event_id_ascii(at, bits)),
            ("ce_time", _time_format(second) % rest),
        ]
        return self._made(self._key, to_json(note).encode(), headers)

    def _head(self, static: Static) -> Headers:
        """Return the headers that all events of one emission have in common."""
        if len(self._heads) > _MOST_HEADS:
            self._heads.clear()
        declared = self._declared.get(static.type or "")
        texts = {
            "ce_type": id_text(static.type),
            "ce_point": id_text(static.point),
            "ce_mode": static.mode,
            "ce_outcome": static.outcome,
            **({} if declared is None else {"ce_dataschema": declared.schema_uri}),
        }
        head = [*self._common, *((name, text.encode()) for name, text in texts.items())]
        self._heads[id(static)] = static, head
        return head


def _structured(key: bytes | None, value: bytes, headers: Headers) -> Message:
    attributes = {name[3:]: text.decode() for name, text in headers if name.startswith("ce_")}
    event = {**attributes, "datacontenttype": JSON.decode(), "data": msgspec.Raw(value)}
    plain = [(name, text) for name, text in headers if name == "traceparent"]
    return Message(key, to_json(event).encode(), [(CONTENT_TYPE, STRUCTURED), *plain])


def _id_of(value: object) -> bytes:
    return id_text(value).encode()


_text: Final = functools.lru_cache(maxsize=10_000)(_id_of)  # of a str: True equals 1


@functools.lru_cache(maxsize=1024)
def _time_format(second: int) -> bytes:
    """Return the time of a second, with a place for its nanoseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.%%09dZ", time.gmtime(second)).encode()
