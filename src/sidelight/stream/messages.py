"""Events as CloudEvents in Kafka messages, and back.

The form is CloudEvents 1.0.2 with its Kafka protocol binding. In binary mode the attributes of the
event are headers, and the value is the payload. In structured mode the value is the whole event.
The value is never empty, because compaction deletes the key of an empty one. A message has a key
only where the event has an artifact, because partitioners put all empty keys into one partition.
"""

from __future__ import annotations

import functools
import re
import sys
import time
from calendar import timegm
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, get_args
from urllib.parse import quote
from uuid import UUID

import msgspec

from sidelight.exceptions import MessageError
from sidelight.record import (
    Mode,
    Moment,
    Outcome,
    Static,
    event_id,
    is_type_name,
    occurred_at,
    record_flags,
    to_json,
    w3c_flags,
)
from sidelight.spool import Record
from sidelight.store import attributes_text, id_text

if TYPE_CHECKING:
    from sidelight.record import Declared

Headers: TypeAlias = list[tuple[str, bytes]]

JSON: Final = b"application/json"
STRUCTURED: Final = b"application/cloudevents+json; charset=UTF-8"
_CONTENT_TYPE: Final = "content-type"
_STRUCTURED_PREFIX: Final = b"application/cloudevents+json"
_SECOND: Final = 1_000_000_000
_RANDOM: Final = 0x3FFF_FFFF_FFFF_FFFF  # the random bits that an event's id holds
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)")
_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_MODES: Final = frozenset(get_args(Mode))
_OUTCOMES: Final = frozenset(get_args(Outcome)) - {"ledger"} | {"abandoned"}


class Message(NamedTuple):
    """One message of a topic."""

    key: bytes | None
    value: bytes
    headers: Headers


class MessageWriter:
    """Writes the records of processes as messages.

    Args:
        structured: write the whole event into the value (structured mode).
    """

    def __init__(self, *, structured: bool = False) -> None:
        self._structured = structured
        self._heads: dict[tuple[Static, str], tuple[Declared | None, Headers]] = {}

    def write(self, record: Record, service: str) -> Message | None:
        """Write the event of a record; None where the record has none.

        Args:
            record: an event, a span, or both.
            service: the name of the service that emitted it.
        """
        static, moment = record
        if static.type is None:
            return None
        occurred = occurred_at(moment)
        second, rest = divmod(occurred, _SECOND)
        key = None
        headers = [
            *self._head(static, service),
            ("ce_id", event_id(occurred, moment.random).encode()),
            ("ce_time", b"%b.%09dZ" % (_second_text(second), rest)),
        ]
        add = headers.append
        if moment.artifact_id is not None:
            artifact = id_text(moment.artifact_id).encode()
            if artifact:
                key = artifact
                add(("ce_subject", artifact))
            else:  # a subject is not empty in CloudEvents
                add(("ce_artifact", b""))
        if moment.organization_id is not None:
            add(("ce_organization", id_text(moment.organization_id).encode()))
        if moment.duration is not None:
            add(("ce_duration", b"%d" % moment.duration))
        if moment.trace is not None:
            flags = w3c_flags(moment.flags)
            parent = f"00-{moment.trace.hex()}-{moment.span_id:016x}-{flags:02x}".encode()
            add(("ce_traceparent", parent))
            if moment.span_id:
                add(("traceparent", parent))
        value = attributes_text(moment).encode()
        return (
            _structured(key, value, headers) if self._structured else Message(key, value, headers)
        )

    def _head(self, static: Static, service: str) -> Headers:
        """The headers that all events of one emission have in common."""
        # Not imported for this, because pydantic is slow to import.
        module = sys.modules.get("sidelight.record.event_types")
        declared = None if module is None else module.catalogue.get(static.type)
        known = self._heads.get((static, service))
        if known is not None and known[0] is declared:
            return known[1]
        if len(self._heads) > 10_000:
            self._heads.clear()
        texts = {
            _CONTENT_TYPE: JSON.decode(),
            "ce_specversion": "1.0",
            "ce_source": quote(service, safe="/:@!$&'()*+,;=~") or "unknown_service",
            "ce_type": id_text(static.type),
            "ce_point": id_text(static.point),
            "ce_mode": static.mode,
            "ce_outcome": static.outcome,
            **({} if declared is None else {"ce_dataschema": declared.schema_uri}),
        }
        head = [(name, text.encode()) for name, text in texts.items()]
        self._heads[static, service] = declared, head
        return head


def _structured(key: bytes | None, value: bytes, headers: Headers) -> Message:
    attributes = {name[3:]: text.decode() for name, text in headers if name.startswith("ce_")}
    event = {**attributes, "datacontenttype": JSON.decode(), "data": msgspec.Raw(value)}
    plain = [(name, text) for name, text in headers if name == "traceparent"]
    return Message(key, to_json(event).encode(), [(_CONTENT_TYPE, STRUCTURED), *plain])


def record_of(value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> Record:
    """Read the record of an event back from a message.

    The record gives the row that the original record gives. It has no span, and its error is among
    its attributes.

    Raises:
        MessageError: the message is damaged, or is not an event of sidelight.
    """
    try:
        return _record(value or b"", headers)
    except (KeyError, ValueError, msgspec.DecodeError, RecursionError) as error:
        missing = f"it has no attribute {error}" if isinstance(error, KeyError) else str(error)
        raise MessageError(problem=missing) from error


def _record(value: bytes, headers: Sequence[tuple[str, bytes | None]]) -> Record:
    found = dict(headers)
    if (found.get(_CONTENT_TYPE) or b"").lower().startswith(_STRUCTURED_PREFIX):
        event = _event_decoder.decode(value)
        data: Any = event.pop("data", None)
        texts: Mapping[str, Any] = event
    else:
        texts = {
            n[3:]: v.decode() for n, v in found.items() if n.startswith("ce_") and v is not None
        }
        data = _data_decoder.decode(value)
    if texts["specversion"] != "1.0":
        raise ValueError(f"it has version {texts['specversion']!r} of CloudEvents")
    if not isinstance(data, dict):
        raise ValueError("its data is not a JSON object")  # noqa: TRY004  # of the message
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"its attribute {name} is not text")  # noqa: TRY004
    return _static(texts["type"], texts["point"], texts["mode"], texts["outcome"]), _moment(
        texts, data
    )


_event_decoder: Final = msgspec.json.Decoder(dict[str, Any])
_data_decoder: Final = msgspec.json.Decoder()


@functools.lru_cache(maxsize=10_000)
def _static(type_name: str, point: str, mode: Any, outcome: Any) -> Static:
    if not is_type_name(type_name) or mode not in _MODES or outcome not in _OUTCOMES:
        raise ValueError(f"its type is {type_name!r}, its mode {mode!r}, its outcome {outcome!r}")
    return Static(type_name, point, mode, outcome, None)


def _moment(texts: Mapping[str, str], data: dict[str, Any]) -> Moment:
    occurred = _nanoseconds(texts["time"])
    random = UUID(texts["id"]).int & _RANDOM
    if event_id(occurred, random) != texts["id"]:
        raise ValueError(f"its id {texts['id']} was not made at its time {texts['time']}")
    duration = int(texts["duration"]) if "duration" in texts else None
    trace, span_id, flags = None, 0, 0
    if "traceparent" in texts:
        if (parent := _TRACEPARENT.fullmatch(texts["traceparent"])) is None:
            raise ValueError(f"its traceparent is {texts['traceparent']!r}")
        trace, span_id = bytes.fromhex(parent[1]), int(parent[2], 16)
        flags = record_flags(int(parent[3], 16))
    return Moment(
        time=occurred - (duration or 0),
        random=random,
        artifact_id=texts.get("subject", texts.get("artifact")),
        organization_id=texts.get("organization"),
        duration=duration,
        trace=trace,
        span_id=span_id,
        parent_id=0,
        flags=flags,
        attributes=data or None,
        details=None,
    )


@functools.lru_cache(maxsize=1024)
def _second_text(second: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()


def _nanoseconds(text: str) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"its time is {text!r}")
    return _second(found[1]) * _SECOND + int((found[2] or "0").ljust(9, "0"))


@functools.lru_cache(maxsize=1024)
def _second(text: str) -> int:
    return timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
