"""The state of the process: configured once, opened at the first emission, closed at the end.

Everything that the first emission needs is imported with this module, because an import may take
longer than the caller's 10 ms.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import sys
import time
from collections.abc import Collection
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from sidelight.emission import EMITTER, TRACING, ClosedSpool, Ledger, Watermark
from sidelight.exceptions import ConfigurationError, SpoolError
from sidelight.host import (
    HAS_FILE_LOCKS,
    PROCESS_MARK,
    Turns,
    guarded,
    log_warning,
    mark_process,
    monotonic,
    sleep,
)
from sidelight.record import random_bits, reseed
from sidelight.runtime.closing import deliver_and_close, is_same_place
from sidelight.runtime.early import EarlyFrames
from sidelight.runtime.forgotten import ForgottenOutboxes
from sidelight.runtime.inheritance import is_being_prepared, settled, when_prepared, without_relay
from sidelight.runtime.measuring import offer_metrics
from sidelight.runtime.starting import Starter, log_no_thread, relay_of
from sidelight.runtime.writer import meta_of_child, writer_meta
from sidelight.settings import Settings
from sidelight.spool import Spool, hot_directory, is_volatile, usable_directory
from sidelight.transactions import forget_outboxes, prepare_libraries

if TYPE_CHECKING:
    from sidelight.record import CheckedSpool
    from sidelight.relay import Relay
    from sidelight.spool import Health, Segment

EXIT_WITHIN: Final = 0.6
"""Seconds that the end of the process may wait for the relay to deliver."""
_IMPORTS_WITHIN: Final = 0.2  # s more, for a relay that is still being imported
_POLL: Final = 0.001  # s
_OPEN_WITHIN: Final = 1.0  # s; at exit, another thread that opens may be frozen for ever


class Runtime:
    """The open spool and relay of this process.

    Attributes:
        instance: the id of this process in the store.
        settings: of this process; None before the first emission.
        spool: None while nothing is open.
        relay: None until it has been imported, and where it is external.
        early: the frames that wait for the spool.
        ending: whether the process is ending, so that no thread can start.
        starting: the turn to import and start the relay, or to fork.
    """

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.spool: Spool | None = None
        self.relay: Relay | None = None
        self.ending = False
        self.starting = Turns()
        self._starter = self._new_starter()
        self._turns = Turns()
        self._closed = ClosedSpool(self.open, self._position)
        self.early = EarlyFrames()
        self._ledger = Ledger(EMITTER)
        self._forgotten = ForgottenOutboxes(None)
        self._parents_relays: list[object] = []
        self.instance = f"{random_bits(64):016x}"
        self._meta: tuple[Settings, dict[str, Any]] | None = None
        self._traced_by: Settings | None = None
        self._given_segment: Segment | None = None
        self._destination: CheckedSpool | None = None  # of frames, where it is not the spool

    def configure(self, settings: Settings, *, instead_of: Settings | None = None) -> None:
        """Open the spool and the relay of ``settings``, and close what was open before.

        Args:
            settings: of this process, from now on.
            instead_of: do nothing where other settings than these are in force by now.
        """
        ticket = object()
        try:
            if not self._turns.take(ticket, _OPEN_WITHIN):
                raise _busy()
            if instead_of is not None and self.settings is not instead_of:
                return
            until = monotonic() + EXIT_WITHIN
            self._await_start(until)
            previous, ledger = self.spool, self._ledger
            goes_on = is_same_place(self.settings, settings)
            self.settings = settings
            forget_outboxes()
            prepare_libraries()
            spool, relay = self._open(settings)
            deliver_and_close(previous, relay, until, ledger, ended=not goes_on)
            has_started = False
            with contextlib.suppress(OSError):  # too many open files to import the relay
                has_started = self._start_relay()
            self._complete(spool, has_started=has_started)
        finally:
            self._turns.pop(ticket, None)

    def open(self) -> Spool | EarlyFrames:
        """Open at the first emission; `inheritance.settled` has the settings unless configured.

        The relay starts in the background. The emitter calls this until that has begun, so that an
        emission makes up for an interrupted one.

        Raises:
            SpoolError: the environment is not valid; the log names the setting.
        """
        ticket = object()
        try:
            if not self._turns.take(ticket, _OPEN_WITHIN if self.spool is None else 0.0):
                if (spool := self.spool) is not None:
                    return spool
                if self._turns.is_of_this_thread():  # a signal handler or a log handler emits
                    return self.early
                raise _busy()
            if self.spool is not None:  # an interrupt came before the end
                return self._complete(self.spool)
            if self.settings is None and is_being_prepared() and not self.ending:
                when_prepared(lambda: self.early.claim() and self.open())
                return self.early
            return self._open_on_call()
        finally:
            self._turns.pop(ticket, None)

    def _open_on_call(self) -> Spool:
        try:
            settings = self.settings = self.settings or settled()
            spool, _ = self._open(settings, on_call=True)
        except ConfigurationError as error:
            EMITTER.use(ClosedSpool())
            self.early.count_lost(str(error))
            log_warning("sidelight: every event is lost: %s", error)
            raise SpoolError(
                directory="of this process",
                problem=str(error),
                remedy="then call sidelight.configure()",
            ) from error
        return self._complete(spool)

    def _complete(self, spool: Spool, *, has_started: bool = False) -> Spool:
        """Do what an open spool lacks: early frames, the relay, at last the emitter."""
        self.early.move_to(spool)
        if not has_started and self._lacks_relay():
            self.starting.pop(get_ident(), None)  # an interrupt has skipped the hook after a fork
            self._starter.start()
        EMITTER.use(self._destination or spool)
        return spool

    def _lacks_relay(self) -> bool:
        """Return whether the relay of an open spool is to be started, or started again."""
        if self.spool is None or self.settings is None or self.ending:
            return False
        relay, is_own = self.relay, self.settings.relay == "thread"
        return is_own and (relay is None or not relay.is_running())

    def _position(self) -> tuple[int, int]:
        """Return a position in the open spool; beyond every store for a frame that waits for it."""
        spool = self.spool  # another thread may close it
        return (sys.maxsize, 0) if spool is None else spool.position()

    def _open(self, settings: Settings, *, on_call: bool = False) -> tuple[Spool, Relay | None]:
        """Open a spool; return the relay of the one before as well."""
        if settings is not self._traced_by:  # a forked child has its parent's
            TRACING.configure(settings.environment)
            self._traced_by = settings
        EMITTER.strict, EMITTER.deadline = settings.strict, settings.deadline
        if self._meta is None or self._meta[0] is not settings:  # at exit nothing is imported
            self._meta = settings, writer_meta(settings, self.instance)
        first, self._given_segment = self._given_segment, None
        spool = Spool(
            usable_directory(settings.spool, EMITTER.count),
            self._meta[1],
            limit=settings.spool_limit,
            count=EMITTER.count,
            first=first,
            hot=hot_directory(settings.hot, settings.spool),
            quarantine=None if HAS_FILE_LOCKS else settings.spool,  # it needs no locks
            on_call=on_call,
        )
        ledger = self._ledger.renewed()
        self._forgotten = ForgottenOutboxes(settings)
        # Positions of another spool do not compare.
        EMITTER.watermark = Watermark(partial(is_volatile, spool.own))
        spool.on_lost = ledger.write_lost
        if settings.relay == "external":  # no relay here writes the ledger before the end
            spool.on_rotation = self.write_ledger
        self._destination = None
        if settings.strict:
            from sidelight.record import CheckedSpool  # noqa: PLC0415  # pydantic is slow to import

            self._destination = CheckedSpool(spool)
        # `_start_relay` works in the opposite order: it sets the relay, then compares the spool. So
        # one of the two sees the other, and a relay that is just starting is stopped.
        self.spool, relay, self.relay = spool, self.relay, None
        self._ledger = ledger  # after the spool: `write_ledger` takes them the other way round
        EMITTER.use(self._closed)
        return spool, relay

    def _new_starter(self) -> Starter:
        return Starter(self._start_relay, lambda: self.ending)

    def _start_relay(self) -> bool:
        """Make the relay of the open spool, and start its threads; return whether that is done."""
        ticket = object()
        try:
            self.starting.take(ticket, math.inf)  # no fork during these imports, which are slow
            spool, settings = self.spool, self.settings
            if spool is None or settings is None or settings.relay != "thread":
                return True
            relay = self.relay
            if relay is None or relay.spool is not spool:
                relay = relay_of(settings, spool, self.write_ledger)
                if self.spool is not spool:  # closed or configured again meanwhile
                    return self.spool is None
                self.relay = relay
                if self.spool is not spool:
                    self.relay = None
                    return self.spool is None
            started = self.start_threads()
            if self.spool is not spool:
                relay.stop(EXIT_WITHIN)
                return self.spool is None
            if not started and self.ending:  # Python 3.12 starts no thread at exit
                relay.drain(retries=1)  # in this thread
                return True
        finally:
            self.starting.pop(ticket, None)
        offer_metrics(self.health, self.usage, self.starting)
        return started

    def start_threads(self) -> bool:
        """Start the relay's threads; False where none can start, and events stay in the spool."""
        try:
            if (relay := self.relay) is not None:
                relay.start()
        except RuntimeError as error:
            log_no_thread(error, is_ending=self.ending)
            return False
        return True

    def write_ledger(self, *, whole: bool = False) -> None:
        """Write the losses and costs of this process to the spool: see `Ledger.write`."""
        ledger, spool = self._ledger, self.spool  # a test may replace `EMITTER.spool`
        if spool is not None:
            self._forgotten.count_now_and_then()
            ledger.write(spool, whole=whole)
            if self.relay is not None:
                from sidelight.runtime.sinks import leave_lost_store  # noqa: PLC0415

                leave_lost_store(self.settings, self.configure)
                offer_metrics(self.health, self.usage, self.starting)

    def flush(self, timeout: float, *, patient: bool = True, needed: Collection[str] = ()) -> bool:
        """Wait for delivery: see `sidelight.flush` and `Relay.flush`."""
        until = monotonic() + timeout
        self.write_ledger(whole=True)
        if self._lacks_relay():
            with contextlib.suppress(SpoolError):  # another thread is closing or configuring
                self.open()
        while (relay := self.relay) is None:
            if self.spool is None:
                return not self._ledger.take_lost()  # nothing was emitted, or all was lost
            external = self.settings is None or self.settings.relay != "thread"
            if external or self.ending or monotonic() >= until:
                return False  # only the external relay knows
            time.sleep(0.005)  # the relay is starting in the background
        flushed = relay.flush(until - monotonic(), patient=patient, needed=needed)
        if not self._forgotten.await_arrival(until):
            self.write_ledger()  # `doctor` tells it soon
            return False
        return flushed and not self._ledger.take_lost()

    def health(self) -> dict[str, Health]:
        """Return the state of each sink of this process's relay."""
        return {} if (relay := self.relay) is None else dict(relay.health())

    def usage(self) -> int:
        """Return the bytes in the spool directory, of all processes."""
        return 0 if (spool := self.spool) is None else spool.usage()

    def close(self, seconds: float) -> bool:
        """Deliver for at most ``seconds``, then close; return whether all threads have ended.

        Undelivered records stay in the spool.
        """
        until = monotonic() + seconds
        ticket = object()
        try:
            if not self._turns.take(ticket, _OPEN_WITHIN):
                raise _busy()
            if self.spool is None:
                return True
            with guarded():
                self._forgotten.count_all()
                self._ledger.write(self.spool, last=True, ended=self.relay is None)
            started = self._await_start(until + _IMPORTS_WITHIN)
            EMITTER.use(self._closed)
            ledger, spool, relay = self._ledger, self.spool, self.relay
            self.spool = self.relay = None
        finally:
            self._turns.pop(ticket, None)
        if not started and self.ending:
            spool.save()
            return False  # the relay may be delivering: leave the segments open until exit
        return deliver_and_close(spool, relay, until, ledger, ended=True)

    def _await_start(self, until: float) -> bool:
        """Wait for a relay that is starting, because it may still deliver."""
        if not self._starter.await_attempt(until):
            return False
        while self.starting:
            if monotonic() >= until:
                return False
            sleep(_POLL)
        return True

    def abandon_after_unseen_fork(self) -> None:
        """Forget the parent's things in a child whose fork ran no Python hook.

        The child starts no relay thread: threads that waited for the GIL in the parent are gone,
        and the interpreter may wait for them for ever as soon as a second thread runs.
        """
        self.abandon(None)
        if self.settings is not None:
            problem = "forked without Python's hooks (uWSGI: py-call-osafterfork)"
            self.settings = without_relay(self.settings, problem)

    def abandon(self, given: Segment | None) -> None:
        """Forget all that the parent has open, in a child; it was ``given`` an empty segment."""
        mark_process()  # first: a signal handler may emit
        reseed()
        self.instance = f"{random_bits(64):016x}"
        self._meta = self._meta and (self._meta[0], meta_of_child(self._meta[1], self.instance))
        self._turns, self.starting, self._starter = Turns(), Turns(), self._new_starter()
        self.early = self.early.in_child()
        if self._given_segment is not None:  # of the grandparent, and unused
            self._given_segment.close()
        self._given_segment = given
        if self.spool is not None:
            self.spool.abandon()
        if self.relay is not None:
            # Keep a reference, so that garbage collection does not close the parent's connections.
            self._parents_relays.append(self.relay)
            if not self.relay.disown() and self.settings is not None:
                self.settings = replace(self.settings, relay="external")
        self.spool = self.relay = None
        EMITTER.use(self._closed)
        forget_outboxes()
        self._forgotten = ForgottenOutboxes(None)
        EMITTER.losses.clear()
        EMITTER.problems.clear()
        for costs in {*EMITTER.costs.values()}:  # many have not been called, and share one
            costs.clear()


def _busy() -> SpoolError:
    return SpoolError(
        directory="of this process",
        problem="another thread is opening it",
        remedy="the next emission tries again",
    )


if not PROCESS_MARK[0]:  # a parent that had no hooks for the fork yet, and nothing open
    mark_process()
    reseed()
RUNTIME: Final = Runtime()
EMITTER.use(RUNTIME._closed)  # noqa: SLF001
EMITTER.abandon = RUNTIME.abandon_after_unseen_fork


def _end() -> None:
    """Close at exit. A later emission goes to the spool only, because no thread can start now."""
    RUNTIME.ending = True
    with guarded():
        if RUNTIME.early.claim() or EMITTER.losses:  # perhaps of a process that emitted nothing
            RUNTIME.open()
    RUNTIME.close(EXIT_WITHIN)


atexit.register(_end)
