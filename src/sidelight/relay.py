"""The relay: drains the spool into the sinks, out of the callers' way.

One worker and one cursor for each sink, so that a dead collector cannot hold up the store; a keeper
that allocates segments ahead of need, makes them power-safe, adopts what dead processes left and
deletes what every sink has passed. All are daemon threads and hold no lock that a caller takes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from _thread import allocate_lock
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec
import tenacity

from sidelight.exceptions import SinkRefusedError, SinkUnavailableError
from sidelight.receipt import Progress
from sidelight.record import Moment, Static, decode
from sidelight.segment import Batch, Scanner, Segment
from sidelight.spool import Spool

_BATCH: Final = 2000
"""Records of one delivery."""
_PIECE: Final = 100  # records decoded without offering the GIL
_IDLE: Final = 0.05  # seconds between looks at a quiet spool
_LATE: Final = 0.003  # a wake-up this much too late means that the GIL is contended
_SYNC: Final = 0.5  # seconds between fdatasyncs: what survives a power loss
_ADOPT: Final = 2.0
_AGED: Final = 600.0
_NEARLY: Final = 0.9  # of the limit: from here on events are written without their spans

logger: Final = logging.getLogger("sidelight")

Record = tuple[Static, Moment]


class Sink(Protocol):
    """Where a worker takes records to (see `sidelight.sinks`)."""

    @property
    def name(self) -> str: ...

    def write(self, records: Sequence[Record], writer: dict[str, Any], /) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Health:
    """How a sink is doing."""

    delivered: int = 0
    failing_since: float | None = None
    problem: str = ""


class Stopped(Exception):  # noqa: N818  # a signal, not an error
    """The worker was told to end in the middle of its retries."""


@dataclass
class Worker:
    """Drains the spool into one sink.

    Attributes:
        progress: told how far the store is, for those who wait; None for the other sinks.
        count: told what was set aside, by reason.
        busy: held while inside the sink's library: a fork must not happen there.
    """

    sink: Sink
    spool: Spool
    count: Callable[[str, str], None]
    progress: Progress | None = None
    health: Health = field(default_factory=Health)
    busy: Any = field(default_factory=allocate_lock)
    _scanners: dict[int, Scanner] = field(default_factory=dict)
    _wake: Any = field(default_factory=allocate_lock)
    _stop: bool = False

    def __post_init__(self) -> None:
        self._wake.acquire()

    # -- the thread --------------------------------------------------------------------------

    def run(self) -> None:
        """Drain until told to stop."""
        while not self._stop:
            try:
                if not self.step():
                    self._rest()
            except Stopped:
                return
            except Exception as error:  # a sink or disk in a state nobody thought of
                self._failing(error)
                logger.exception("sidelight: the %s relay stumbled", self.sink.name)
                self._pause(1.0)

    def poke(self) -> None:
        """Wake the worker: somebody waits."""
        with contextlib.suppress(RuntimeError):  # awake already
            self._wake.release()

    def stop(self) -> None:
        """End after the current delivery."""
        self._stop = True
        self.poke()

    def _rest(self) -> None:
        """Sleep until poked; how late the wake-up comes tells whether the GIL is contended."""
        due = time.monotonic() + _IDLE
        if not self._wake.acquire(timeout=_IDLE) and self.progress is not None:
            self.progress.late = time.monotonic() - due > _LATE

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stop and (left := until - time.monotonic()) > 0:
            self._wake.acquire(timeout=left)

    # -- the work ----------------------------------------------------------------------------

    def step(self, attempts: int | None = None) -> bool:
        """Deliver one batch of each source; False when there was nothing to deliver.

        Args:
            attempts: how often to try before `SinkUnavailableError`; None never gives up.
        """
        delivered = False
        for segment in self._sources():
            key = id(segment)
            scanner = self._scanners.get(key)
            if scanner is None or scanner.segment is not segment:
                scanner = self._scanners[key] = Scanner(segment, segment.cursors[self.sink.name])
            final = segment.sealed
            if not final and segment.mapping is not None and segment.tell() <= scanner.offset:
                continue
            batch = scanner.batch(_BATCH)
            self._set_aside(segment, batch)
            if batch.payloads:
                self._deliver(segment, batch, attempts)
                delivered = True
            elif final:
                self._finish(segment, key)
                delivered = True
        return delivered

    def _sources(self) -> Iterator[Segment]:
        """The oldest unread segment of our own, and the oldest of the adopted."""
        for segments in (self.spool.own, self.spool.adopted):
            unread = (s for s in tuple(segments) if self.sink.name not in s.passed)
            segment = next(unread, None)
            if segment is not None:
                yield segment

    def _deliver(self, segment: Segment, batch: Batch, attempts: int | None) -> None:
        records = self._decoded(segment, batch)
        try:
            self._write(records, segment.meta, attempts)
        except SinkRefusedError:
            self._write_singly(segment, records, attempts)
        except BaseException:
            self._scanners.pop(id(segment), None)  # to be read again from the cursor
            raise
        self.health.delivered += len(records)
        segment.advance(self.sink.name, batch.end)
        if self.progress is not None and segment.number:
            self.progress.advance((segment.number, batch.end))

    def _write_singly(
        self, segment: Segment, records: Sequence[Record], attempts: int | None
    ) -> None:
        """Find the records that the sink refuses, and set them aside."""
        for record in records:
            try:
                self._write([record], segment.meta, attempts)
            except SinkRefusedError as error:
                self._quarantine(segment, f"refused by {self.sink.name}", str(error), record)

    def _write(
        self, records: Sequence[Record], writer: dict[str, Any], attempts: int | None
    ) -> None:
        """Deliver, with a jittered back-off until it succeeds."""
        policy = tenacity.Retrying(
            sleep=self._pause,
            wait=tenacity.wait_exponential_jitter(initial=0.05, max=2.0, jitter=0.1),
            stop=tenacity.stop_after_attempt(attempts) if attempts else tenacity.stop_never,
            retry=tenacity.retry_if_exception_type(SinkUnavailableError),
            reraise=True,
        )
        for attempt in policy:
            if self._stop and attempts is None:
                raise Stopped
            with attempt:
                try:
                    with self.busy:
                        self.sink.write(records, writer)
                except SinkUnavailableError as error:
                    self._failing(error)
                    raise
                except SinkRefusedError:
                    raise
                except Exception as error:  # it chokes on a value in a way of its own
                    raise SinkRefusedError(sink=self.sink.name, problem=repr(error)) from error
        self.health.failing_since = None

    def _failing(self, error: Exception) -> None:
        self.health.problem = str(error)
        if self.health.failing_since is None:
            self.health.failing_since = time.time()

    def _decoded(self, segment: Segment, batch: Batch) -> list[Record]:
        records = []
        for index, payload in enumerate(batch.payloads):
            try:
                records.append(decode(payload))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self._quarantine(segment, "unreadable record", str(error), payload)
            if index % _PIECE == _PIECE - 1 and not (self.progress and self.progress.late):
                time.sleep(0)  # offer the GIL; where it is contended it is taken anyway
        return records

    def _set_aside(self, segment: Segment, batch: Batch) -> None:
        for offset, stretch in batch.damaged:
            self._quarantine(segment, "damaged stretch of the spool", f"at {offset}", stretch)

    def _quarantine(self, segment: Segment, reason: str, problem: str, what: object) -> None:
        """Keep what cannot be delivered where it can be looked at, and count it."""
        self.count(reason, problem)
        if segment.path is None:
            return
        directory = segment.path.parent / "quarantine"
        content = what if isinstance(what, bytes) else msgspec.msgpack.encode(what)
        with contextlib.suppress(OSError):
            directory.mkdir(mode=0o700, exist_ok=True)
            name = f"{segment.path.stem}-{self.sink.name}-{time.time_ns():x}"
            path = directory / f"{name}.bin"
            path.touch(mode=0o600)
            path.write_bytes(content)

    def _finish(self, segment: Segment, key: int) -> None:
        segment.passed.add(self.sink.name)
        self._scanners.pop(key, None)
        if self.progress is not None and segment.number:
            self.progress.advance((segment.number + 1, 0))

    def behind(self) -> bool:
        """Whether this sink has something left to take."""
        for segment in (*self.spool.own, *self.spool.adopted):
            if self.sink.name in segment.passed:
                continue
            if segment.sealed or segment.tell() > segment.cursors[self.sink.name]:
                return True
        return False


@dataclass
class Keeper:
    """Looks after the segments."""

    spool: Spool
    sinks: Sequence[str]
    ledger: Callable[[], None]
    count: Callable[[str, str], None]
    spans: Callable[[bool], None]
    _wake: Any = field(default_factory=allocate_lock)
    _stop: bool = False
    _last: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._wake.acquire()

    def run(self) -> None:
        """Keep house until told to stop."""
        while not self._stop:
            try:
                self.step()
            except Exception:
                logger.exception("sidelight: the spool's keeper stumbled")
            self._wake.acquire(timeout=0.1)

    def poke(self) -> None:
        """Wake the keeper: a segment was used up."""
        with contextlib.suppress(RuntimeError):
            self._wake.release()

    def stop(self) -> None:
        """End after the current round."""
        self._stop = True
        self.poke()

    def step(self) -> None:
        """One round."""
        self.spool.provide()
        self.collect()
        if self._due("sync", _SYNC):
            self.ledger()
            self._sync()
        if self._due("adopt", _ADOPT):
            self.spool.rescue()
            self.spool.adopt()
            self.spool.rotate_aged(_AGED)
            self._measure()

    def collect(self) -> None:
        """Delete the segments that every sink has passed, also those that only their writer had."""
        for segment in (*self.spool.own, *self.spool.adopted):
            wanted = {*self.sinks, *segment.meta.get("sinks", ())}
            if segment.sealed and wanted <= segment.passed:
                self.spool.forget(segment)

    def _due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._last.get(what, 0.0) < seconds:
            return False
        self._last[what] = now
        return True

    def _sync(self) -> None:
        for segment in tuple(self.spool.own):
            written = segment.tell()
            if segment.synced < written:
                segment.sync()
                segment.synced = written

    def _measure(self) -> None:
        """Hold the directory within its limit: telemetry goes first, then spans, then events."""
        limit = self.spool.limit
        used = self.spool.usage()
        for segment in (*self.spool.adopted, *self.spool.own):
            if used < limit:
                break
            if segment.sealed and "store" in segment.passed:
                self.count("spool full: telemetry let go", str(segment.path))
                used -= segment.size
                self.spool.forget(segment)
        self.spool.full = used >= limit
        self.spans(used < _NEARLY * limit)


class Relay:
    """The workers and the keeper of one process."""

    def __init__(
        self,
        spool: Spool,
        sinks: Sequence[Sink],
        progress: Progress,
        *,
        ledger: Callable[[], None] = lambda: None,
        count: Callable[[str, str], None] = lambda _reason, _problem: None,
        spans: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.spool = spool
        self.progress = progress
        self.workers = [
            Worker(sink, spool, count, progress if sink.name == "store" else None) for sink in sinks
        ]
        self.keeper = Keeper(spool, [sink.name for sink in sinks], ledger, count, spans)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the daemon threads."""
        self.spool.on_rotation = self.keeper.poke
        self.progress.poke = self._poke_store
        self.progress.active = True
        for part, name in ((self.keeper, "keeper"), *((w, w.sink.name) for w in self.workers)):
            thread = threading.Thread(target=part.run, name=f"sidelight-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _poke_store(self) -> None:
        for worker in self.workers:
            if worker.progress is not None:
                worker.poke()

    def flush(self, seconds: float, *, patient: bool = True) -> bool:
        """Wait until every sink that answers has taken what was emitted up to now.

        Args:
            seconds: the longest to wait.
            patient: also wait for sinks that are failing at the moment, in case they recover.

        Returns:
            Whether all of them have.
        """
        until = time.monotonic() + seconds
        while True:
            behind = [w for w in self.workers if w.behind()]
            if not patient:
                behind = [w for w in behind if w.health.failing_since is None]
            if not behind or time.monotonic() >= until:
                return not any(w.behind() for w in self.workers)
            for worker in behind:
                worker.poke()
            time.sleep(0.002)

    def drain(self, attempts: int = 3) -> dict[str, int]:
        """Deliver all there is, in this thread; for `sidelight relay --once`.

        Returns:
            Records delivered, by sink.

        Raises:
            SinkUnavailableError: a sink did not answer ``attempts`` times.
        """
        self.spool.adopt()
        problem: SinkUnavailableError | None = None
        for worker in self.workers:
            try:
                while worker.step(attempts):
                    self.keeper.collect()
            except SinkUnavailableError as error:
                problem = error
        self.keeper.collect()
        if problem is not None:
            raise problem
        return {worker.sink.name: worker.health.delivered for worker in self.workers}

    def health(self) -> Mapping[str, Health]:
        """How each sink is doing."""
        return {worker.sink.name: worker.health for worker in self.workers}

    @contextlib.contextmanager
    def paused(self, seconds: float) -> Iterator[None]:
        """Keep the workers outside of their libraries, so that a fork finds no lock taken."""
        held = [w for w in self.workers if w.busy.acquire(timeout=seconds)]
        try:
            yield
        finally:
            for worker in held:
                worker.busy.release()

    def stop(self, seconds: float) -> bool:
        """Stop the threads; False when one does not end in time (it is inside its library)."""
        self.progress.active = False
        for part in (self.keeper, *self.workers):
            part.stop()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        ended = not any(thread.is_alive() for thread in self._threads)
        if ended:
            for worker in self.workers:
                worker.sink.close()
        return ended

