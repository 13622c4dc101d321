"""The ledger's records: the losses and costs of one process, in parts of bounded size.

Each entry is cumulative for its reason or point. So parts may be delivered twice, in any order, and
a part need not hold more than the entries that have changed.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec

from sidelight.record.costs import Bucket
from sidelight.record.encoding import encode
from sidelight.record.format import Moment, Static, decode, encode_static, frame

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_HEAD: Final = encode_static(Static(None, "sidelight:ledger", "scheduled", "ledger", None))


class CostSnapshot(msgspec.Struct, frozen=True):
    """The costs of one point: see `Costs.snapshot`."""

    count: _Count
    over: _Count
    max: _Count
    buckets: list[tuple[Bucket, _Count]]


class LedgerPart(msgspec.Struct, frozen=True):
    """A part of a ledger.

    Attributes:
        losses: how many records were lost or cut, by reason.
        problems: the latest problem of a reason, in words.
        costs: the costs of a point, by the point's path.
        began: when the process opened its spool (ns); only in a part that tells that the process
            lives. What the process wrote before such a part has been delivered before it.
        ended: the process writes nothing after this part.
    """

    losses: dict[str, _Count] = {}
    problems: dict[str, str] = {}
    costs: dict[str, CostSnapshot] = {}
    began: _Count | None = None
    ended: bool = False


def ledger_frame(content: dict[str, Any], time_ns: int, random: int) -> bytes:
    """Frame the fields of one `LedgerPart`.

    Raises:
        ValueError: the part is larger than a record may be.
    """
    moment = (time_ns, random, None, None, None, None, 0, 0, 0, content, None)
    return frame(_HEAD + encode(moment))


def is_ledger(payload: bytes) -> bool:
    """Return whether a payload is a part of a ledger."""
    return payload.startswith(_HEAD)


def blank_payload(length: int, time_ns: int) -> bytes | None:
    """Make the payload of a ledger that says nothing, to take the place of another payload.

    Args:
        length: bytes of the other payload.
        time_ns: of the ledger.

    Returns:
        None where none is so short.
    """
    for name in ("", "-", "--"):  # the length of a text takes one byte or more
        for head in (0, 1, 2, 4):
            room = length - len(_padded(name, 0, time_ns)) - head
            if room >= 0 and len(payload := _padded(name, room, time_ns)) == length:
                return payload
    return None


def _padded(name: str, room: int, time_ns: int) -> bytes:
    padding = {name: "-" * room}  # a field that no `LedgerPart` has
    return _HEAD + encode((time_ns, 0, None, None, None, None, 0, 0, 0, padding, None))


def merge_ledgers(earlier: bytes, later: bytes) -> bytes:
    """Return the payload of one part that tells what two parts of the same process tell.

    Where one of them does not have the shape of a ledger, return the later one.
    """
    try:
        moments = [decode(each)[1] for each in (earlier, later)]
        one, other = map(ledger_part, moments)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return later
    newer = [each for each, count in other.losses.items() if count >= one.losses.get(each, 0)]
    merged = LedgerPart(
        one.losses | {reason: other.losses[reason] for reason in newer},
        one.problems | {each: other.problems[each] for each in newer if each in other.problems},
        one.costs
        | {
            point: snapshot
            for point, snapshot in other.costs.items()
            if point not in one.costs or snapshot.count >= one.costs[point].count
        },
        one.began if other.began is None else other.began,
        one.ended or other.ended,
    )
    time_ns = max(moment.time for moment in moments)
    return _HEAD + encode(
        (time_ns, moments[1].random, None, None, None, None, 0, 0, 0, merged, None)
    )


def ledger_part(moment: Moment) -> LedgerPart:
    """Read a part of a ledger from its record.

    Raises:
        msgspec.ValidationError: the record does not have the shape of a ledger.
    """
    return msgspec.convert(moment.attributes or {}, LedgerPart)
