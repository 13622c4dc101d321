"""The process's own sidelight: configured once, opened at the first emission, closed at the end.

This is the only process-wide state there is, and the only module that knows of exit.
What the first emission needs is imported with it: a caller has 10 ms, and an import may take them.
So are thread pools: what `concurrent.futures` does for a forked child must come before what the
SDK's TracerProvider does there (it uses a pool), or the child hangs; hooks run in the order of
their registration, and our exporters would import it later.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401  # here, so that its hooks precede a provider's
import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

from sidelight.emission import EMITTER, TRACING, Closed, Early, Ledger, Progress
from sidelight.exceptions import ConfigurationError, SpoolError
from sidelight.host import allocate_lock, sleep, start_new_thread
from sidelight.record import random_bits, reseed
from sidelight.settings import RelayMode, Settings, settle, writer_meta
from sidelight.spool import Spool, usable

if TYPE_CHECKING:
    from collections.abc import Collection

    from sidelight.relay import Relay
    from sidelight.spool import Health, Segment

EXIT_WITHIN: Final = 0.6
"""Seconds that the end of the process may wait for the relay; the rest goes to the next process."""
_IMPORTS_WITHIN: Final = 0.2  # … more, for one that is still being imported
_TRY_AGAIN: Final = 0.5  # seconds after which a relay that could not start does, then ever more
_OPEN_WITHIN: Final = 1.0  # for another thread that opens; at the end it may be frozen for ever

_logger: Final = logging.getLogger("sidelight")


class Runtime:
    """What is open in this process."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.spool: Spool | None = None
        self.relay: Relay | None = None
        self.ending = False
        self.starting = allocate_lock()
        self._begun = allocate_lock()  # held until a relay has been started, or has failed to
        self._opening = RLock()
        self._is_opening = False
        self._early = Early()
        self._ledger = Ledger(EMITTER)
        self._inherited: list[object] = []
        self._instance = f"{random_bits(64):016x}"
        self._meta: dict[str, Any] | None = None
        self._inheritance: Segment | None = None

    def configure(self, settings: Settings) -> Spool:
        """Open the spool and the relay of ``settings``, and close what was open before."""
        with self._alone():
            until = time.monotonic() + EXIT_WITHIN
            self._await_start(until)
            before = self.spool, self.relay
            self.relay, self.settings, self._meta = None, settings, None
            spool = self._open(settings)
            self._let_go(*before, until)
            if settings.relay == "thread":
                try:
                    self._start_relay(settings, spool)
                except OSError:  # no file can be opened, to import it
                    self._start_later(settings, spool)
            return spool

    def open(self) -> Spool | Early:
        """Open at the first emission, by the environment where nobody has configured.

        The relay, whose libraries take long to import, is started in the background.

        Raises:
            SpoolError: the environment asks for what cannot be; the log has said so.
        """
        with self._alone():
            if self.spool is not None:
                return self.spool
            if self._is_opening:  # a signal handler, or the log of a failure, emits
                return self._early
            self._is_opening = True
            try:
                settings = self.settings = self.settings or settle()
                spool = self._open(settings)
                self._early.move(spool)
            except ConfigurationError as error:
                EMITTER.spool = Closed()
                self._early.lose(str(error))
                _logger.warning("sidelight loses every event: %s", error)
                raise SpoolError(directory="", problem=str(error), remedy="") from error
            finally:
                self._is_opening = False
            if settings.relay == "thread" and not self.ending:
                self._start_later(settings, spool)
            return spool

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._opening.acquire(timeout=_OPEN_WITHIN):
            raise SpoolError(directory="", problem="another thread is opening it", remedy="")
        try:
            yield
        finally:
            self._opening.release()

    def _open(self, settings: Settings) -> Spool:
        TRACING.configure(settings.environment)
        EMITTER.strict, EMITTER.deadline = settings.strict, settings.deadline
        if self._meta is None:  # made once: at the very end there are no imports any more
            self._meta = writer_meta(settings, self._instance)
        first, self._inheritance = self._inheritance, None
        spool = Spool(
            usable(settings.spool, EMITTER.count),
            self._meta,
            limit=settings.spool_limit,
            count=EMITTER.count,
            first=first,
        )
        self._ledger.begin()
        EMITTER.progress = Progress()  # positions in another spool say nothing of this one
        self.spool = EMITTER.spool = spool
        if settings.relay == "external":  # nobody else tells of losses, before the end
            spool.on_rotation = self.write_ledger
        if settings.strict:
            from sidelight.record import CheckedSpool  # noqa: PLC0415  # pydantic is slow to import

            EMITTER.spool = CheckedSpool(spool)
        return spool

    def _start_later(self, settings: Settings, spool: Spool) -> None:
        """Start the relay in the background; the end of the process waits for the first try."""
        self._begun = begun = allocate_lock()
        begun.acquire()
        try:
            # Not `Thread.start`: that waits for the new thread, which goes on to import.
            start_new_thread(self._start_in_background, (settings, spool, begun))
        except RuntimeError as error:
            begun.release()
            _tell_of_no_thread(error)

    def _start_in_background(self, settings: Settings, spool: Spool, begun: Any) -> None:
        """Start the relay; where it cannot now (no file can be opened), try again and again."""
        try:
            self._start_relay(settings, spool)
        except Exception:
            if not self.ending:  # else there is nothing to import
                _logger.exception("sidelight's relay cannot start; events wait in the spool")
        finally:
            begun.release()
        pause = _TRY_AGAIN
        while self.relay is None and self.spool is spool and not self.ending:
            sleep(pause)
            pause = min(2 * pause, 30.0)
            with contextlib.suppress(Exception):
                self._start_relay(settings, spool)

    def _start_relay(self, settings: Settings, spool: Spool) -> None:
        def span_switch(on: bool) -> None:
            EMITTER.spans = on

        with self.starting:  # no fork in the middle of an import
            from sidelight.relay import Relay  # noqa: PLC0415  # … these, and not needed to emit
            from sidelight.runtime.outboxes import outboxes_of  # noqa: PLC0415  # as slow as …
            from sidelight.runtime.sinks import sinks_of  # noqa: PLC0415

            sinks = sinks_of(settings, EMITTER.count)
            outboxes = outboxes_of(settings, spool.meta, EMITTER.count)
            if self.spool is not spool:  # closed meanwhile, or configured anew
                return
            self.relay = relay = Relay(
                spool,
                sinks,
                EMITTER.progress,
                ledger=self.write_ledger,
                count=EMITTER.count,
                spans=span_switch,
                outboxes=outboxes,
            )
            if not self.go_on() and self.ending:  # from Python 3.12 on no thread starts now …
                relay.drain(attempts=1)  # … but this one can deliver
                return
            with contextlib.suppress(Exception):  # a stranger's MeterProvider
                from sidelight.runtime.metrics import register  # noqa: PLC0415

                register(self.health, self.usage)

    def go_on(self) -> bool:
        """Let the relay run, and whether it does: without threads, events wait in the spool."""
        try:
            if self.relay is not None:
                self.relay.start()
        except RuntimeError as error:
            _tell_of_no_thread(error)
            return False
        return True

    def write_ledger(self) -> None:
        """Tell what this process has lost and spent, where that has changed."""
        if self.spool is not None:  # not the emitter's: another may stand in for it in a test
            self._ledger.write(self.spool)

    def flush(
        self, timeout: float, *, patient: bool = True, needed: Collection[str] = ("store",)
    ) -> bool:
        """See `sidelight.flush`, and for what is ``needed`` `Relay.flush`."""
        until = time.monotonic() + timeout
        self.write_ledger()
        while self.relay is None:
            if self.spool is None:
                return not EMITTER.losses  # nothing was emitted, or nothing was kept
            external = self.settings is None or self.settings.relay != "thread"
            if external or self.ending or time.monotonic() >= until:
                return False  # another process relays, and knows
            time.sleep(0.005)  # it is being started, in the background
        return self.relay.flush(until - time.monotonic(), patient=patient, needed=needed)

    def health(self) -> dict[str, Health]:
        """How each sink of this process's relay is doing."""
        return {} if self.relay is None else dict(self.relay.health())

    def usage(self) -> int:
        """Bytes that the spool holds, all processes together."""
        return 0 if self.spool is None else self.spool.usage()

    def close(self, seconds: float) -> bool:
        """Deliver what can be delivered in time, and let go. What is left stays in the spool.

        Returns:
            Whether all threads have ended.
        """
        until = time.monotonic() + seconds
        with self._alone():
            if self.spool is None:
                return True
            with contextlib.suppress(Exception):
                self._ledger.write(self.spool, last=True)
            started = self._await_start(until + _IMPORTS_WITHIN)
            before = self.spool, self.relay
            EMITTER.spool = Closed(self.open)
            self.spool = self.relay = None
        if not started and self.ending:
            return False  # it may be delivering: the segments end with the process
        return self._let_go(*before, until)

    def _await_start(self, until: float) -> bool:
        """Wait for a relay that is being started: it may still deliver what there is."""
        for lock in (self._begun, self.starting):
            if not lock.acquire(timeout=max(0.0, until - time.monotonic())):
                return False
            lock.release()
        return True

    def _let_go(self, spool: Spool | None, relay: Relay | None, until: float) -> bool:
        if relay is not None:
            relay.flush(0.75 * (until - time.monotonic()), patient=False)
            if spool is not None:  # a sink may have refused some of it, and may yet
                tell = partial(self._ledger.write, spool, last=True)
                with contextlib.suppress(Exception):
                    tell()
                relay.flush(0.5 * (until - time.monotonic()), patient=False)
                relay.keeper.ledger = tell
            if not relay.stop(until - time.monotonic()):
                if spool is not None:
                    spool.seal()
                return False  # one is inside its library: the segments end with the process
        if spool is not None:
            spool.close()
        return True

    def abandon(self, inheritance: Segment | None) -> None:
        """In a forked child: everything open is the parent's, but for one segment, still empty."""
        reseed()
        self._instance, self._meta = f"{random_bits(64):016x}", None
        self._opening, self._is_opening = RLock(), False
        self.starting, self._begun = allocate_lock(), allocate_lock()
        self._early = Early()
        if self._inheritance is not None:  # the parent was a child itself, and has not used it
            self._inheritance.close()
        self._inheritance = inheritance
        if self.spool is not None:
            self.spool.abandon()
        if self.relay is not None:
            self._inherited.append(self.relay)  # what it holds must not be closed by and by
            if not self.relay.disown() and self.settings is not None:
                self.settings = replace(self.settings, relay="external")
        self.spool = self.relay = None
        EMITTER.spool = Closed(self.open)
        EMITTER.losses.clear()
        EMITTER.problems.clear()
        for costs in EMITTER.costs.values():
            costs.clear()


def _tell_of_no_thread(error: RuntimeError) -> None:
    at_the_end = RUNTIME.ending or "shutdown" in str(error)
    _logger.log(
        logging.DEBUG if at_the_end else logging.WARNING,
        "sidelight's relay gets no thread (%s); events wait in the spool",
        error,
    )


RUNTIME: Final = Runtime()
EMITTER.spool = Closed(RUNTIME.open)


def configure(
    store: str | None = None,
    *,
    otlp: bool | str | None = None,
    spool: str | os.PathLike[str] | None = None,
    outboxes: Sequence[str] | None = None,
    relay: RelayMode = "thread",
    spool_limit: int = 1024 * 1024 * 1024,
    deadline: float = 0.010,
    strict: bool | None = None,
) -> None:
    """Say where events go. Without it, the first emission does so by the environment.

    Args:
        store: ``sqlite:///events.db`` or ``postgresql://host/database``; else ``SIDELIGHT_STORE``,
            else a file in the user's state directory.
        otlp: True exports to where ``OTEL_EXPORTER_OTLP_*`` says, a URL to that base URL, False
            nowhere; None exports when one of the endpoint variables is set.
        spool: directory of the spool; else ``SIDELIGHT_SPOOL``, else beside the SQLite store, else
            in the user's state directory.
        outboxes: URLs of the databases whose transactions events join (``transaction=``); else
            ``SIDELIGHT_OUTBOXES``, separated by spaces.
        relay: "thread" delivers from a daemon thread of this process; "external" leaves it all to
            `sidelight relay`.
        spool_limit: bytes that the spool may hold while a sink is down.
        deadline: seconds that an awaited emission may hold up its caller.
        strict: raise what the instrumentation gets wrong instead of counting it (for tests); else
            ``SIDELIGHT_STRICT``.

    Raises:
        ConfigurationError: names the setting and the remedy.
    """
    RUNTIME.configure(
        settle(
            store,
            otlp=otlp,
            spool=spool,
            outboxes=outboxes,
            relay=relay,
            spool_limit=spool_limit,
            deadline=deadline,
            strict=strict,
        )
    )


def flush(timeout: float = 5.0) -> bool:
    """Wait until everything that this process emitted is in the store, and in whatever answers.

    Args:
        timeout: the longest to wait, in seconds.

    Returns:
        Whether it is. A collector that does not answer is not waited for. What is not delivered
        yet stays in the spool; with ``relay="external"`` only `sidelight relay` knows of it.
    """
    return RUNTIME.flush(timeout)


def _end() -> None:
    """What is emitted after this goes to the spool, for the next process: no thread starts now."""
    RUNTIME.ending = True
    RUNTIME.close(EXIT_WITHIN)


atexit.register(_end)
