"""From a record to the spool to a receipt: the guarded middle of every emission.

One `Emitter` stands for the process (`runtime` opens and closes its spool); the generated wrappers
hold on to it, so that everything that can change at run time changes in it.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from sidelight.emission.receipt import Progress, Receipt
from sidelight.exceptions import InstrumentationError, SpoolError
from sidelight.host import from_outside
from sidelight.record import (
    CUT,
    FRAME,
    FRAME_MAGIC,
    MAX_PAYLOAD,
    Costs,
    Moment,
    MomentTuple,
    Static,
    encode,
    encode_into,
    encode_static,
    error_message,
    frame,
    new_buffer,
    plain,
    random_bits,
    replaced,
)

DEADLINE: Final = 0.010
"""The longest that one emission may hold up its caller, in seconds."""
MARGIN: Final = 0.005
"""What a timed wait may overshoot, in seconds: one switch interval of the GIL. A wait is so much
shorter than the deadline."""
_LEDGER: Final = encode_static(Static(None, "sidelight:ledger", "scheduled", "ledger", None))
_pack: Final = FRAME.pack
_crc32: Final = zlib.crc32


class Head:
    """The static part of one emission's records: encoded once, its CRC the seed of theirs."""

    __slots__ = ("encoded", "seed", "size", "static")

    def __init__(self, static: Static) -> None:
        self.static = static
        self.encoded = encode_static(static)
        self.size = len(self.encoded)
        self.seed = _crc32(self.encoded)

    def made_plain(self, moment: MomentTuple) -> MomentTuple:
        """Copy a moment that msgpack refused, with all values made plain."""
        fields = Moment(*moment)
        return replaced(
            moment,
            artifact_id=plain(fields.artifact_id),
            organization_id=plain(fields.organization_id),
            attributes=plain(fields.attributes),
            details=plain(fields.details, depth=-2),
        )

    def cut(self, moment: MomentTuple) -> MomentTuple:
        """Copy a moment without its attributes, and mark it so, because it is too large."""
        fields = Moment(*moment)
        details = fields.details or {}
        return replaced(
            moment,
            artifact_id=_shortened(fields.artifact_id),
            organization_id=_shortened(fields.organization_id),
            flags=fields.flags | CUT,
            attributes=None,
            details={key: details[key] for key in _BOUNDED if key in details} or None,
        )


class Appending(Protocol):
    """What takes frames."""

    def append(self, frame: bytes, /) -> None:
        """Copy a frame in, making room for it."""
        ...


class Destination(Appending, Protocol):
    """What the emitter needs of a spool."""

    @property
    def write(self) -> Callable[[bytes], Any]:
        """Copies a frame in; ValueError asks for `append`."""
        ...

    def position(self) -> tuple[int, int]:
        """A place behind what was written."""
        ...


class Emitter:
    """Writes records, and catches what goes wrong while it does.

    Attributes:
        spool: where the frames go; an unopened one opens itself at the first write.
        losses: what was lost, or written without its attributes, by reason.
        costs: what each point has cost, by its path.
        strict: raise what the guard would count (in tests).
        spans: False while the spool is too full to carry them.
        joins: whether events go into the caller's transactions; else they wait for the commit.
    """

    def __init__(self) -> None:
        self.spool: Destination = Closed()
        self.progress = Progress()
        self.losses: dict[str, int] = {}
        self.problems: dict[str, str] = {}
        self.costs: dict[str, Costs] = {}
        self.strict = False
        self.spans = True
        self.joins = True
        self.deadline = DEADLINE

    def write(self, head: Head, moment: MomentTuple) -> bool:
        """Encode one record and copy it into the spool; False when it was lost, which is counted.

        ``moment`` has the fields of `record.Moment`, in their order.
        """
        body: Any = new_buffer()
        try:
            encode_into(moment, body)
        except Exception as error:  # noqa: BLE001  # a surrogate, a cycle, 2**64
            body = self._encoded_slowly(head, moment, error)
        size = head.size + len(body)
        if size > MAX_PAYLOAD:
            body = self._encoded_short(head, moment)
            size = head.size + len(body)
        frame = _pack(FRAME_MAGIC, size, _crc32(body, head.seed)) + head.encoded + body
        try:
            self.spool.write(frame)
        except ValueError:
            return self._append(head, frame)
        return True

    def payload(self, head: Head, moment: MomentTuple) -> bytes:
        """A record as `write` would frame it, for other places than the spool."""
        try:
            body = encode(moment)
        except Exception as error:  # noqa: BLE001  # looked into there
            body = self._encoded_slowly(head, moment, error)
        if head.size + len(body) > MAX_PAYLOAD:
            body = self._encoded_short(head, moment)
        return head.encoded + body

    def _encoded_slowly(self, head: Head, moment: MomentTuple, error: Exception) -> bytes:
        if from_outside(error, looking=False):
            raise error
        return encode(head.made_plain(moment))

    def _encoded_short(self, head: Head, moment: MomentTuple) -> bytes:
        self.count("attributes too large", head.static.point)
        return encode(head.cut(moment))

    def _append(self, head: Head, frame: bytes) -> bool:
        try:
            self.spool.append(frame)
        except (SpoolError, OSError) as error:
            self.lost("no room in the spool", head.static.point, error, looking=False)
            return False
        return True

    def receipt(
        self, moment_time: int, random: int, position: tuple[int, int] | None, *, spent: int
    ) -> Receipt:
        """The receipt for what was written before ``position``, or lost where that is None.

        Its deadline is what ``spent`` (ns) leaves.
        """
        remaining = self.deadline - MARGIN - spent / 1e9
        return Receipt(self.progress, position, moment_time, random, remaining)

    def lost(self, reason: str, point: str, error: BaseException, *, looking: bool = True) -> None:
        """Count something that could not be recorded.

        Raises in strict mode only; but what came from outside (a signal handler's error) goes on:
        see `from_outside`.
        """
        if from_outside(error, looking=looking):
            raise error
        self.count(reason, f"{point}: {type(error).__name__}: {error_message(error)}")
        if self.strict and not isinstance(error, InstrumentationError):
            problem = error_message(error)
            raise InstrumentationError(point=point, reason=reason, problem=problem) from error

    def count(self, reason: str, problem: str) -> None:
        """Add one to a reason for loss, and keep the latest problem in words for the log."""
        self.losses[reason] = self.losses.get(reason, 0) + 1
        self.problems[reason] = problem

    def costs_of(self, point: str) -> Costs:
        """The histogram of one point."""
        return self.costs.setdefault(point, Costs())

    def ledger(self) -> bytes:
        """A frame of costs and losses so far: cumulative, hence safe to deliver twice."""
        told = {
            "losses": dict(self.losses),
            "problems": dict(self.problems),
            "costs": {point: costs.snapshot() for point, costs in self.costs.copy().items()},
        }
        moment = (time.time_ns(), random_bits(64), None, None, None, None, 0, 0, 0, told, None)
        return frame(_LEDGER + encode(moment))


class Closed:
    """The spool before it is opened, and after it was closed for good: `reopen` decides."""

    def __init__(self, reopen: Callable[[], Appending] | None = None) -> None:
        self._reopen = reopen

    def write(self, frame: bytes) -> None:
        """Open the spool that belongs here, then write to it."""
        self.append(frame)

    def append(self, frame: bytes) -> None:
        """Open the spool that belongs here, then append to it."""
        if self._reopen is None:
            raise SpoolError(
                directory="", problem="it is not open", remedy="call sidelight.configure()"
            )
        self._reopen().append(frame)

    def position(self) -> tuple[int, int]:
        """Behind everything that is acknowledged: where `Early` will put it is not known yet."""
        return (sys.maxsize, 0)


class Early:
    """Keeps what is emitted while the spool is being opened, by the very thread that opens it.

    A signal handler does that, a `__del__`, the log of a failure. Nobody else can be waited for.
    """

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self.append = self._frames.append

    def move(self, spool: Appending) -> None:
        """Append all of it to the spool that is open now; what finds no room is counted."""
        while self._frames:
            try:
                spool.append(self._frames.popleft())
            except (SpoolError, OSError) as error:
                EMITTER.count("no room in the spool", error_message(error))

    def lose(self, problem: str) -> None:
        """There will be no spool: count what would have been in it."""
        while self._frames:
            self._frames.popleft()
            EMITTER.count("internal error", problem)


#: The details of a span that are kept when the record is cut, because they are bounded.
_BOUNDED: Final = ("error", "status", "name", "trace_state")


def _shortened(value: Any) -> Any:
    return value[:512] if isinstance(value, str) else value


EMITTER: Final = Emitter()
"""The emitter of this process: the wrappers write to it, `runtime` opens its spool."""
