"""The emitter: encodes one record, writes it to the spool, and counts what is lost.

There is one `Emitter` for the process, and `runtime` opens and closes its spool. The generated
wrappers refer to the emitter, so that everything that changes at run time changes inside it.
"""

from __future__ import annotations

import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, Protocol

from sidelight.emission.receipt import Receipt
from sidelight.emission.waiting import Watermark
from sidelight.exceptions import InstrumentationError, SidelightError, SpoolError
from sidelight.host import PROCESS_MARK, Ran, is_interrupt, mark_process
from sidelight.record import (
    CUT,
    FRAME,
    FRAME_MAGIC,
    MAX_PAYLOAD,
    NO_COSTS,
    Costs,
    Moment,
    MomentTuple,
    Static,
    encode,
    encode_into,
    encode_static,
    error_details,
    error_message,
    new_buffer,
    plain,
    replaced,
)

DEADLINE: Final = 0.010
"""The longest time that one emission may take from its caller (s)."""
MARGIN: Final = 0.005
"""A wait ends this much before the deadline (s), because a timed wait may end one switch interval
of the GIL too late."""
LOST: Final = (
    "no room in the spool",
    "not recorded",
    "internal error",
    "recursion limit",
    "emit refused",
    "commit without an answer",
)
"""The reasons for which an event is lost before it is in the spool."""
_MAX_REASON: Final = 200  # characters: a reason is a key in the store
_pack: Final = FRAME.pack
_crc32: Final = zlib.crc32


class Head:
    """The static part of one emission's records, encoded once; its CRC seeds theirs."""

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


class Appendable(Protocol):
    """A place that frames can be appended to."""

    def append(self, frame: bytes, /) -> None:
        """Copy a frame in, and make room for it."""
        ...


class Destination(Appendable, Protocol):
    """The part of a spool that the emitter uses."""

    @property
    def write(self) -> Callable[[bytes], Any]:
        """Copies a frame in; ValueError asks for `append`."""
        ...

    def position(self) -> tuple[int, int]:
        """Return a position behind the last frame."""
        ...


class Emitter:
    """Writes records and contains the errors of doing so.

    Attributes:
        spool: takes the frames; a closed spool opens itself at the first write.
        watermark: of the store, in this process's part of the spool.
        losses: how many records were lost or cut, by reason.
        problems: the latest problem of each reason, in words.
        costs: the histogram of each point, by the point's path.
        strict: raise what the guard would count (in tests).
        spans: False while the spool is too full for spans.
        joins: whether events are inserted in the caller's transactions; else they wait for the
            commit.
        deadline: the longest time that one emission may take from its caller (s).
        abandon: forgets, in a forked child, everything that the parent has open.
        recording: whether a test records what is emitted, instead of the spool: as long as it
            says ("always"), or until the process is configured.
    """

    def __init__(self) -> None:
        self.spool: Destination = ClosedSpool()
        self.recording: Literal["no", "until configured", "always"] = "no"
        self._behind: Destination = self.spool
        self.watermark = Watermark()
        self.losses: defaultdict[str, int] = defaultdict(int)
        self.problems: dict[str, str] = {}
        self.costs: dict[str, Costs] = {}
        self.strict = False
        self.spans = True
        self.joins = True
        self.deadline = DEADLINE
        self.abandon: Callable[[], None] = mark_process

    @property
    def is_recording(self) -> bool:
        """Whether a test records what is emitted."""
        return self.recording != "no"

    def use(self, spool: Destination) -> None:
        """Write into this spool from now on; where a test records, after the recording."""
        if self.recording == "no":
            self.spool = spool
        else:
            self._behind = spool

    @contextmanager
    def recorded_by(self, test: Destination, *, always: bool, strict: bool) -> Iterator[None]:
        """Write into a test's recording while the block runs; `recording` may end it earlier."""
        kept = self.spool, self.strict, self.joins, self.recording
        if self.recording == "no":
            self._behind = self.spool
        self.spool, self.strict, self.joins = test, strict, False
        self.recording = "always" if always else "until configured"
        try:
            yield
        finally:
            if self.is_recording:  # `end_recording` may have been called
                self.spool, self.strict, self.joins, self.recording = kept
                if self.recording == "no":
                    self.spool = self._behind

    def end_recording(self) -> None:
        """Write into the spool again, as `recording` says, because the process is configured."""
        if self.recording == "until configured":
            self.spool, self.joins, self.recording = self._behind, True, "no"

    def write(self, head: Head, moment: MomentTuple) -> bool:
        """Encode one record and copy it into the spool.

        Returns:
            False where the record was lost; the loss was counted.
        """
        body: Any = new_buffer()
        try:
            encode_into(moment, body)
        except Exception as error:  # noqa: BLE001  # a surrogate, a cycle, 2**64
            body = self._encoded_plain(head, moment, error)
        size = head.size + len(body)
        if size > MAX_PAYLOAD:
            body = self._encoded_cut(head, moment)
            size = head.size + len(body)
        frame = _pack(FRAME_MAGIC, size, _crc32(body, head.seed)) + head.encoded + body
        if not PROCESS_MARK[0]:
            self.abandon()
        try:
            self.spool.write(frame)
        except ValueError:
            return self._append(head, frame)
        return True

    def payload(self, head: Head, moment: MomentTuple) -> bytes:
        """Encode one record as `write` does, for a place other than the spool."""
        try:
            body = encode(moment)
        except Exception as error:  # noqa: BLE001  # as in `write`
            body = self._encoded_plain(head, moment, error)
        if head.size + len(body) > MAX_PAYLOAD:
            body = self._encoded_cut(head, moment)
        return head.encoded + body

    def _encoded_plain(self, head: Head, moment: MomentTuple, error: Exception) -> bytes:
        if is_interrupt(error, ran="sidelight"):
            raise error
        return encode(head.made_plain(moment))

    def _encoded_cut(self, head: Head, moment: MomentTuple) -> bytes:
        self.count("attributes too large", head.static.point)
        moment = head.cut(moment)
        body = encode(moment)
        if head.size + len(body) > MAX_PAYLOAD:
            body = encode(replaced(moment, details=None))
        return body

    def _append(self, head: Head, frame: bytes) -> bool:
        try:
            self.spool.append(frame)
        except (SpoolError, OSError) as error:
            self.lost("no room in the spool", head.static.point, error, ran="sidelight")
            return False
        return True

    def receipt(
        self, moment_time: int, random: int, position: tuple[int, int] | None, *, spent: int
    ) -> Receipt:
        """Make the receipt for a record before ``position``; None where the record was lost.

        ``spent`` is the part of the deadline that is over (ns).
        """
        return Receipt(self.watermark, position, moment_time, random, self.remaining(spent))

    def remaining(self, spent: int) -> float:
        """Return the seconds that a wait may last after ``spent`` (ns) of the deadline."""
        return self.deadline - MARGIN - spent / 1e9

    def lost(self, reason: str, point: str, error: BaseException, *, ran: Ran = "value") -> None:
        """Count a record, or a part of one, that could not be written.

        Args:
            reason: the reason for loss.
            point: the path of the point.
            error: the exception that the guard has caught.
            ran: see `is_interrupt`.

        Raises:
            BaseException: ``error``, where it is an interrupt.
            InstrumentationError: in strict mode.
        """
        if is_interrupt(error, ran=ran):
            raise error
        self.count(reason, f"{point}: {_described(error)}")
        if self.strict and not isinstance(error, InstrumentationError):
            problem = error_message(error)
            raise InstrumentationError(point=point, reason=reason, problem=problem) from error

    def count(self, reason: str, problem: str) -> None:
        """Add one to a reason for loss, and keep the problem in words for the log.

        Counting is exact among threads without a lock, because CPython switches threads only at
        calls and at jumps back, and there is none between the load and the store.
        """
        reason = reason[:_MAX_REASON]
        self.losses[reason] += 1
        self.problems[reason] = problem

    def costs_of(self, point: str) -> Costs:
        """Find or make the histogram of one point."""
        costs = self.costs.get(point, NO_COSTS)
        if costs is NO_COSTS:
            costs = self.costs[point] = Costs()
        return costs

    def know(self, point: str) -> None:
        """Enter a point that has not been called so far."""
        self.costs.setdefault(point, NO_COSTS)


class ClosedSpool:
    """The spool before it is opened and after it was closed; a write opens it by ``reopen``."""

    def __init__(
        self,
        reopen: Callable[[], Appendable] | None = None,
        position: Callable[[], tuple[int, int]] = lambda: (sys.maxsize, 0),
    ) -> None:
        self._reopen = reopen
        self.position = position  # beyond every store, as long as the frame waits for the spool

    def write(self, frame: bytes) -> None:
        """Open the spool, then append to it."""
        self.append(frame)

    def append(self, frame: bytes) -> None:
        """Open the spool, then append to it.

        Raises:
            SpoolError: the spool cannot be opened.
        """
        if self._reopen is None:
            raise SpoolError(
                directory="of this process",
                problem="it is not open",
                remedy="call sidelight.configure()",
            )
        self._reopen().append(frame)


def _described(error: BaseException) -> str:
    """Name an exception, its message, and the place that raised it."""
    kind, message, frames = error_details(error)
    text = f"{kind}: {message}" if message else kind
    if not frames or issubclass(type(error), SidelightError | OSError):
        return text  # it tells a condition: no code is wrong
    file, line, function = frames[-1]
    return f"{text} (in {function}, {file}:{line})"


#: The details of a span that are kept when the record is cut, because they are bounded.
_BOUNDED: Final = ("error", "status", "name", "trace_state")


def _shortened(value: Any) -> Any:
    return value[:512] if isinstance(value, str) else value


EMITTER: Final = Emitter()
"""The emitter of this process."""
