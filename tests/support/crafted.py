"""Data that is valid in form but not what sidelight writes: records and headers of segments."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sidelight.record.format import Static, encode, encode_static, event_id, frame
from sidelight.spool.segment import Segment

HEAD = encode_static(Static("crafted", "p:f", "scheduled", "emitted", None))
LEDGER = encode_static(Static(None, "x", "scheduled", "ledger", None))


def moment(**changed: Any) -> bytes:
    """Encode a moment with some of its fields changed."""
    fields = {
        "time": time.time_ns(),
        "random": 7,
        "artifact_id": "order-1",
        "organization_id": None,
        "duration": None,
        "trace": None,
        "span_id": 0,
        "parent_id": 0,
        "flags": 0,
        "attributes": None,
        "details": None,
    }
    return encode(tuple({**fields, **changed}.values()))


def raw_moment(attributes: bytes = b"\xc0", artifact: bytes = b"\xa1a") -> bytes:
    """An encoded moment with raw bytes in two places."""
    rest = b"\xc0\xc0\xc0\x00\x00\x00"
    return b"\x9b" + encode(time.time_ns()) + encode(7) + artifact + rest + attributes + b"\xc0"


def nested(levels: int) -> bytes:
    """Encode a number in so many lists."""
    return b"\x91" * levels + b"\x01"


PAYLOADS = {
    "deep attributes": HEAD + raw_moment(b"\x81\xa1k" + nested(5000)),
    "less deep attributes": HEAD + raw_moment(b"\x81\xa1k" + nested(900)),
    "deep artifact": HEAD + raw_moment(artifact=nested(5000)),
    "less deep artifact": HEAD + raw_moment(artifact=nested(900)),
    "array of a billion": HEAD + raw_moment(b"\x81\xa1k\xdd" + struct.pack(">I", 10**9)),
    "text of 4 GB": HEAD + raw_moment(b"\x81\xa1k\xdb" + struct.pack(">I", 4 * 10**9)),
    "extension": HEAD + raw_moment(b"\x81\xa1k\xc7\x05\x7fabcde"),
    "far timestamp": HEAD
    + raw_moment(b"\x81\xa1k\xc7\x0c\xff" + struct.pack(">Iq", 999999999, 2**62)),
    "late time": HEAD + moment(time=2**64 - 1),
    "early time": HEAD + moment(time=-(2**63)),
    "details": HEAD + moment(details={"error": 5}),
    "ledger": LEDGER + moment(attributes={"losses": {"r": "many"}, "costs": {"p": 5}}),
    "escape codes": b"\x92" + encode(["t\x1b[31m", "p", "m" * 300, "emitted", None]) + moment(),
    "outcome": b"\x92" + encode(["t", "p", "m", "odd", None]) + moment(),
    "not a record": b"not a record",
}
META = {
    "sinks that are a number": {"sinks": 5},
    "sinks that are lists": {"sinks": [[1]]},
    "an unknown sink": {"sinks": ["store", "elsewhere"]},
    "a store that is a list": {"store": ["x"]},
    "an instance that is a map": {"instance": {"a": 1}},
    "a pid that is text": {"pid": "one"},
    "a negative limit": {"limit": -1},
    "a resource that is a list": {"resource": [1]},
    "a resource with lists": {"resource": {"service.name": ["x"], "host.name": {"a": 1}}},
    "escape codes": {
        "store": "sqlite:////x\x1b]0;pwn\x07",
        "resource": {"service.name": "\x1b[2J"},
    },
}


GOOD = 10  # records of a crafted segment


def segment_in(
    directory: Path,
    store: str,
    payloads: Sequence[bytes] = (),
    /,
    *,
    first: int = 0,
    count: int = GOOD,
    **changed: Any,
) -> set[str]:
    """Make a segment whose crafted records stand between good ones; return the good ones' ids.

    Args:
        directory: of the spool; made where it is missing.
        store: URL of the store that the segment names.
        payloads: the crafted records.
        first: makes the ids of good records differ from another segment's.
        count: how many records are good.
        changed: entries of the header.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    meta = {
        "instance": "00aa",
        "pid": 1,
        "store": store,
        "relay": "thread",
        "role": "application",
        "limit": 1 << 30,
        "sinks": ["store"],
        "limits": [],
        "resource": {},
    }
    segment = Segment.create(directory, 1 << 20, {**meta, **changed})
    at = time.time_ns()
    good = [HEAD + moment(time=at, random=first + n) for n in range(count)]
    half = count // 2
    for each in (*good[:half], *payloads, *good[half:]):
        segment.write(frame(each))
    segment.close()
    return {event_id(at, first + n) for n in range(count)}
