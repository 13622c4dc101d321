"""One sink's worker: reads the spool from its own cursor, delivers in batches, retries for ever.

What a sink refuses is set aside record by record; what it cannot take now stays in the spool, and
no other sink notices.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

import msgspec
import tenacity

from sidelight.emission import Watermark
from sidelight.exceptions import SinkInDoubtError, SinkRefusedError, SinkUnavailableError
from sidelight.host import Loop, allocate_lock, set_context, sleep, suppressed
from sidelight.record import decode, encode
from sidelight.relay.refusals import Sieve, may_be_over, newest_of
from sidelight.spool import Batch, Entry, Health, Record, Scanner, Segment, Sink, Spool, why

_BATCH: Final = 2000
"""Records of one delivery."""
_BACKLOG: Final = 10_000
"""Of one to the store, which takes them in pieces: the larger these are, the less each costs."""
_PIECE: Final = 100  # records decoded without offering the GIL
_IDLE: Final = 0.05  # seconds between looks at a quiet spool
_LATE: Final = 0.003  # a wake-up this much too late means that the GIL is contended …
_PATIENCE: Final = 5.0  # seconds for a disk to become readable again
_OUTAGE: Final = 5.0  # seconds after which a sink that does not answer is worth a log line
_WAKE_UPS: Final = 10  # … and so do the next ones, until all of the last ones came in time

Writer: TypeAlias = dict[str, Any]
Attempt: TypeAlias = Callable[[Sequence[Record], Writer], None]

logger: Final = logging.getLogger("sidelight")


class Stopped(Exception):  # noqa: N818  # a signal, not an error
    """The worker was told to end in the middle of its retries."""


@dataclass
class Worker:
    """Drains the spool into one sink.

    Attributes:
        watermark: advanced after each commit of the store; None for the other sinks.
        count: told what was set aside, by reason.
        loop: its thread.
        ending: it is to begin no more: it lets go of the sink when it has ended.
        busy: inside the sink's library at the moment.
    """

    sink: Sink
    spool: Spool
    count: Callable[[str, str], None]
    watermark: Watermark | None = None
    health: Health = field(default_factory=Health)
    ending: bool = False
    busy: bool = False
    _sieve: Sieve = field(default_factory=Sieve)
    _scanners: dict[int, Scanner] = field(default_factory=dict)
    _unreadable: dict[int, float] = field(default_factory=dict)
    _wake: Any = field(default_factory=allocate_lock)
    _poked_at: float = 0.0
    _told: bool = False
    _lateness: deque[float] = field(default_factory=lambda: deque(maxlen=_WAKE_UPS))

    def __post_init__(self) -> None:
        self.loop = Loop(f"sidelight-{self.sink.name}", self.run)
        self._wake.acquire()

    @property
    def is_store(self) -> bool:
        """Whether this is the sink that acknowledges events."""
        return self.watermark is not None

    @property
    def failing(self) -> bool:
        """Whether the sink did not take the last thing that it was given."""
        return self.health.failing_since is not None

    # -- the thread --------------------------------------------------------------------------

    def run(self) -> None:
        """Drain until told to stop."""
        set_context(suppressed())  # what we do is nobody's to make spans of
        if self.is_store:  # the first who waits shall not wait for that
            self.open()
        with contextlib.suppress(Stopped):
            while not self.loop.halting:
                self._turn()
        if self.ending:
            self.sink.close()

    def open(self) -> None:
        """Open the sink, if it answers: an empty batch does that."""
        with contextlib.suppress(SinkUnavailableError, SinkRefusedError, Stopped):
            self._try((), {})

    def _turn(self) -> None:
        try:
            if not self.step():
                self._rest()
        except Stopped:
            raise
        except SinkInDoubtError:  # to be read again, with what comes meanwhile
            self._pause(1.0)
        except Exception as error:  # a sink or disk in a state nobody thought of
            self._failing(error)
            if self.spool.troubles.count("relay stumbled", f"{self.sink.name}: {error!r}"):
                logger.exception("sidelight: the %s relay stumbled", self.sink.name)
            self._pause(1.0)

    def poke(self) -> None:
        """Wake the worker: somebody waits."""
        if not self._poked_at:
            self._poked_at = time.monotonic()
        with contextlib.suppress(RuntimeError):  # awake already
            self._wake.release()

    def stop(self) -> None:
        """End after the current delivery."""
        self.loop.halt()
        self.poke()

    def _rest(self) -> None:
        """Sleep until poked; how late the wake-up comes tells whether the GIL is contended."""
        self._poked_at, due = 0.0, time.monotonic() + _IDLE
        self._wake.acquire(timeout=_IDLE)
        if self.watermark is not None:
            self._lateness.append(time.monotonic() - (self._poked_at or due))
            self.watermark.is_contended = max(self._lateness) > _LATE

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.loop.halting and (left := until - time.monotonic()) > 0:
            self._wake.acquire(timeout=left)

    # -- the work ----------------------------------------------------------------------------

    def step(self, attempts: int | None = None) -> bool:
        """Deliver one batch of each source; False when there was nothing to deliver.

        Args:
            attempts: how often to try before `SinkUnavailableError`; None never gives up.
        """
        delivered = False
        for segment in self._sources():
            scanner = self._scanner_of(segment)
            final = segment.sealed
            if not final and segment.mapping is not None and segment.tell() <= scanner.offset:
                continue
            try:
                batch = scanner.batch(_BACKLOG if self.is_store else _BATCH)
            except OSError as error:
                self._cannot_read(segment, scanner.offset, error)
                continue
            self._unreadable.pop(id(segment), None)
            try:
                delivered |= self._bring(segment, batch, attempts, final=final)
            except BaseException:
                self._scanners.pop(id(segment), None)  # to be read again from the cursor
                raise
        return delivered

    def _bring(self, segment: Segment, batch: Batch, attempts: int | None, *, final: bool) -> bool:
        """Deliver what was read; False when that is nothing."""
        self._set_aside(segment, batch)
        if batch.payloads:
            self._deliver(segment, batch, attempts)
        elif final:
            self._finish(segment)
        elif batch.damaged:
            self._advance(segment, batch.end)
        else:
            return False
        return True

    def _scanner_of(self, segment: Segment) -> Scanner:
        if len(self._scanners) > len(self.spool.own) + len(self.spool.adopted):
            self._scanners.clear()  # some have gone without being read to the end
        scanner = self._scanners.get(id(segment))
        if scanner is None or scanner.segment is not segment:
            scanner = Scanner(segment, segment.cursors[self.sink.name])
            self._scanners[id(segment)] = scanner
        return scanner

    def _cannot_read(self, segment: Segment, offset: int, error: OSError) -> None:
        """Give the disk some time; then what it still cannot read is passed over."""
        since = self._unreadable.setdefault(id(segment), time.monotonic())
        if time.monotonic() - since > _PATIENCE:
            segment.is_sick = True
            self.count(f"segment not readable: {why(error)}", f"{segment.path} from {offset} on")

    def _sources(self) -> Iterator[Segment]:
        """The oldest unread segment of our own, that of the dead, and all of the living."""
        adopted = tuple(self.spool.adopted)
        ended = [segment for segment in adopted if segment.sealed]
        for segments in (tuple(self.spool.own), ended):
            unread = (s for s in segments if self.sink.name not in s.passed)
            segment = next(unread, None)
            if segment is not None:
                yield segment
        yield from (segment for segment in adopted if segment.live)

    def _deliver(self, segment: Segment, batch: Batch, attempts: int | None) -> None:
        records = self._decoded(segment, batch)
        take = partial(self._write, self._try, writer=segment.meta, attempts=attempts)
        try:
            self._write(self._attempt, records, segment.meta, attempts)
        except SinkRefusedError as error:
            self._refused(segment, self._sieve.refused(records, take, error))
        self.health.delivered += len(records)
        self._advance(segment, batch.end)

    def _advance(self, segment: Segment, offset: int) -> None:
        try:
            segment.advance(self.sink.name, offset)
        except OSError as error:
            self.spool.troubles.count(f"cursor not written: {why(error)}", str(error))
        self._reach(segment, (segment.number, offset))

    def _reach(self, segment: Segment, position: tuple[int, int]) -> None:
        """Tell those who wait how far the store is; what is read again takes nothing back."""
        if self.watermark is not None and segment.number:
            self.watermark.advance(max(position, self.watermark.position))

    def _write(
        self, attempt: Attempt, records: Sequence[Record], writer: Writer, attempts: int | None
    ) -> None:
        """Deliver, with a jittered back-off until it succeeds."""
        try:
            attempt(records, writer)
        except SinkUnavailableError as error:
            if not may_be_over(error):
                raise
            policy = tenacity.Retrying(
                sleep=self._pause,
                wait=tenacity.wait_exponential(0.05, max=2.0) + tenacity.wait_random(0.0, 0.1),
                stop=tenacity.stop_after_attempt(attempts) if attempts else tenacity.stop_never,
                retry=tenacity.retry_if_exception(may_be_over),
                reraise=True,
            )
            policy(attempt, records, writer)

    def _attempt(self, records: Sequence[Record], writer: Writer) -> None:
        """Try a batch. A store that refuses whatever it is given is one that does not answer."""
        try:
            self._try(records, writer)
        except SinkRefusedError as error:
            others = newest_of(self.spool.own, self.sink.name)
            if not self.is_store or self._sieve.blames(
                records, others, lambda some: self._try(some, writer)
            ):
                raise
            with self._noting():
                raise SinkInDoubtError(
                    sink=self.sink.name, problem=error.facts["problem"]
                ) from error

    def _try(self, records: Sequence[Record], writer: Writer) -> None:
        with self._noting():
            self._hand_over(records, writer)
            self._answers(yes=True)
            self._sieve.took(records)

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Note that the sink does not answer; who is told to stop, does not try again."""
        try:
            yield
        except SinkUnavailableError as error:
            self._failing(error)
            if self.loop.halting:
                raise Stopped from error
            raise

    def _hand_over(self, records: Sequence[Record], writer: Writer) -> None:
        self.busy = True
        try:
            self.sink.write(records, writer)
        except (SinkUnavailableError, SinkRefusedError):
            raise
        except MemoryError as error:  # the records are not to blame
            with contextlib.suppress(Exception):  # it may be in any state
                self.sink.close()
            problem = "no memory is left"
            raise SinkUnavailableError(sink=self.sink.name, problem=problem) from error
        except Exception as error:  # it chokes on a value in a way of its own
            raise SinkRefusedError(sink=self.sink.name, problem=repr(error)) from error
        finally:
            self.busy = False

    def _answers(self, *, yes: bool) -> None:
        """Note whether the sink answers; only for a store that does is it worth while to wait."""
        if yes:
            self.health.failing_since = None
        if self.watermark is not None:
            self.watermark.store_answers = yes and not self.loop.halting

    def _failing(self, error: Exception) -> None:
        self._answers(yes=False)
        self.health.problem = str(error)
        now = time.time()
        if self.health.failing_since is None:
            self.health.failing_since, self._told = now, False
        elif not self._told and now - self.health.failing_since > _OUTAGE:
            self._told = True
            logger.warning("sidelight: %s; its records wait in the spool", self.health.problem)

    def _decoded(self, segment: Segment, batch: Batch) -> list[Record]:
        records = []
        for index, payload in enumerate(batch.payloads):
            try:
                records.append(decode(payload))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self._quarantine(segment, "unreadable record", str(error), payload)
            if index % _PIECE == _PIECE - 1 and not (
                self.watermark and self.watermark.is_contended
            ):
                sleep(0)  # offer the GIL; where it is contended it is taken anyway
        return records

    def _set_aside(self, segment: Segment, batch: Batch) -> None:
        for at, stretch in () if segment.is_sick else batch.damaged:  # that is set aside whole
            self._quarantine(
                segment, "damaged stretch of the spool", f"at {at}", stretch, offset=at
            )

    def _refused(self, segment: Segment, some: Iterator[tuple[Record, SinkRefusedError]]) -> None:
        name = self.sink.name
        for record, error in some:
            data, problem = encode(record), str(error.facts["problem"])
            self._quarantine(segment, f"refused by {name}", problem, data, refused_by=name)

    def _quarantine(
        self,
        segment: Segment,
        reason: str,
        problem: str,
        payload: bytes,
        *,
        refused_by: str | None = None,
        offset: int | None = None,
    ) -> None:
        """Keep what cannot be delivered where it can be looked at, and count it once."""
        entry = Entry(
            kind="record" if offset is None else "stretch",
            reason=reason,
            problem=problem,
            refused_by=refused_by,
            sinks=(self.sink.name,),
            at=time.time_ns(),
            writer=segment.meta,
            segment="" if segment.path is None else segment.path.stem,
            offset=offset,
            payload=payload,
        )
        try:
            if self.spool.quarantine.keep(entry):  # else another sink has met it before
                self.count(reason, problem)
        except OSError as error:
            self.count(reason, problem)
            self.count("not kept in quarantine", f"{reason}: {error.strerror}")

    def _finish(self, segment: Segment) -> None:
        segment.passed.add(self.sink.name)
        self._scanners.pop(id(segment), None)
        self._reach(segment, (segment.number + 1, 0))

    def sync(self) -> bool:
        """Make what the sink has taken survive a power loss; what it was taken from may go then."""
        try:
            self.sink.sync()
        except OSError as error:
            problem = f"{self.sink.name}: {error}"
            self.spool.troubles.count(f"not power-safe: {why(error)}", problem)
            return False
        return True

    def behind(self) -> bool:
        """Whether this sink has something left to take."""
        return any(
            segment.is_ahead_of(self.sink.name)
            for segment in (*self.spool.own, *self.spool.adopted)
            if self.sink.name not in segment.passed
        )
