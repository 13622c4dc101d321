"""`sidelight relay`: deliver the records in a spool directory to their sinks."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final

import typer
from msgspec.structs import replace
from rich.text import Text

from sidelight.cli.code import import_all
from sidelight.cli.collector import collecting_seldom
from sidelight.cli.metrics import exporting_metrics
from sidelight.cli.options import AsJson, Otlp, Outboxes, SpoolDirectory, StoreUrl, Stream
from sidelight.cli.output import complain, print_json, remark
from sidelight.cli.spool.commands import as_command, located
from sidelight.cli.spool.segments import (
    Backlog,
    outboxes_beside,
    read_spool,
    require_directory,
    settings_for,
    writers_of,
)
from sidelight.cli.tables import print_table
from sidelight.emission import EMITTER, Ledger, Watermark
from sidelight.exceptions import ConfigurationError, SinkUnavailableError
from sidelight.host import monotonic
from sidelight.record import is_same_store, is_same_stream, random_bits
from sidelight.relay import Relay
from sidelight.runtime import RUNTIME, outboxes_of, sinks_of, writer_meta
from sidelight.settings import Settings, outbox_url
from sidelight.spool import Health, Sink, Spool, prepare_directory
from sidelight.store import StoreSink, number, plural

_END_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_END_WITHIN: Final = 5.0  # seconds to deliver the rest after a signal
_REPORT_EVERY: Final = 1.0  # seconds
_LOOK_EVERY: Final = 0.2  # seconds between two looks for living applications
_LOOK_AT_OUTBOXES_EVERY: Final = 30.0  # seconds


def relay(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Deliver what the spool holds, then end.")
    ] = False,
    linger: Annotated[
        float,
        typer.Option(
            "--linger",
            metavar="SECONDS",
            min=0.0,
            help="Before the end, wait up to SECONDS until no application writes any more.",
        ),
    ] = 0.0,
    store: StoreUrl = None,
    stream: Stream = None,
    spool: SpoolDirectory = None,
    otlp: Otlp = None,
    outbox: Outboxes = None,
    catalogue: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE",
            help="Import this module, which declares event types: the relay marks events that "
            "do not fit. Repeatable.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Deliver the records in a spool to the store, to the stream and over OTLP.

    The relay adopts orphaned segments: those of processes that have ended. It also reads the
    segments of running processes that were configured with relay="external". Without --store and
    --stream, the records name their store and stream. What a sink does not take stays in the spool.
    Any number of relays may work on one spool.

    With --outbox, the relay also moves events that joined a transaction of a business database
    (transaction=), once the transaction has committed.

    The relay runs until SIGTERM or Ctrl-C, and delivers the rest before it ends. With --once, the
    exit code is 1 where records are left, also in an outbox that another relay holds.

    Examples:
      sidelight relay --once --store sqlite:///events.db

      sidelight relay --spool /var/lib/shop/spool --otlp http://collector:4318

      sidelight relay --outbox postgresql://localhost/shop
    """
    if problems := import_all(catalogue or ()):
        raise ConfigurationError(
            setting="--catalogue",
            problem="; ".join(problems),
            remedy="name modules that can be imported",
        )
    settings = replace(
        settings_for(spool, store, otlp, [] if spool is None else writers_of(spool), stream),
        role="relay",
    )
    if outbox:
        settings = replace(settings, outboxes=tuple(map(outbox_url, outbox)))
    with exporting_metrics(), collecting_seldom():
        try:
            if once:
                _deliver_once(settings, linger, as_json=as_json)
            else:
                _run(settings, linger, as_json=as_json)
        finally:
            # They are written. The end of the process would write them once more, into the
            # spool of the default store.
            EMITTER.losses.clear()


def _deliver_once(settings: Settings, linger: float, *, as_json: bool) -> None:
    sinks = sinks_of(settings, EMITTER.count)
    problem = _upgrade(sinks)
    if not settings.outboxes:
        require_directory(settings.spool)
    until = monotonic() + linger
    while monotonic() < until and _application_lives(settings):
        time.sleep(_LOOK_EVERY)
    _print_outboxes(settings, outboxes_beside(settings))
    health = _drain(settings, sinks, f"{random_bits(64):016x}")
    _print_health(health, as_json=as_json)
    left = _print_what_is_left(settings, health)
    if problem and not left:
        complain(problem)
    if problem or left:
        raise typer.Exit(1)


def _upgrade(sinks: Iterable[Sink]) -> str:
    """Upgrade the store, because no record may come that does; return the problem, or ""."""
    for sink in sinks:
        if isinstance(sink, StoreSink):
            try:
                sink.upgrade()
            except SinkUnavailableError as error:
                return str(error)
    return ""


def _application_lives(settings: Settings) -> bool:
    """Return whether an application is alive that emits into the same store."""
    here = settings.named_store
    return any(
        meta.get("role") != "relay" and is_same_store(meta.get("store"), here)
        for meta in writers_of(settings.spool, living=True)
    )


def _drain(settings: Settings, sinks: Sequence[Sink], instance: str) -> Mapping[str, Health]:
    """Deliver what the spool holds, and return the health of each sink.

    Args:
        settings: of this process.
        sinks: to deliver to.
        instance: the id under which this process reports its own losses.

    Raises:
        SpoolError: the spool cannot be used.
    """
    prepare_directory(settings.spool)
    spool = Spool(settings.spool, writer_meta(settings, instance), count=EMITTER.count)
    outboxes = outboxes_of(settings, spool.meta, EMITTER.count)
    relay = Relay(spool, sinks, Watermark(), count=EMITTER.count, outboxes=outboxes)
    try:
        with contextlib.suppress(SinkUnavailableError):  # `health` names the sink and the problem
            relay.drain()
        if EMITTER.losses:
            Ledger(EMITTER).write(spool, last=True)
            with contextlib.suppress(SinkUnavailableError):
                relay.drain(retries=1)
    finally:
        relay.stop(0.0)
        spool.close()
    return relay.health()


def _run(settings: Settings, linger: float, *, as_json: bool) -> None:
    """Relay until a signal arrives. The signals are blocked and waited for, not handled.

    After the end of the relay's thread the spool is drained once more: an application may have
    ended a moment before, and its volume may vanish together with this process.
    """
    prepare_directory(settings.spool)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _END_SIGNALS)
    try:
        RUNTIME.configure(settings)
        remark(f"relaying {settings.spool} to {settings.destination}{_telemetry(settings)}")
        failing: set[str] = set()
        beside: set[str] = set()
        looked = -math.inf
        while signal.sigtimedwait(_END_SIGNALS, _REPORT_EVERY) is None:
            _print_changes(RUNTIME.health(), failing)
            if monotonic() > looked + _LOOK_AT_OUTBOXES_EVERY:
                looked = monotonic()
                found = {*outboxes_beside(settings)}
                _print_outboxes(settings, sorted(found - beside))
                beside |= found
        until = monotonic() + linger
        while monotonic() < until and _application_lives(settings):
            if signal.sigtimedwait(_END_SIGNALS, _LOOK_EVERY) is not None:  # a second signal
                break
        health = RUNTIME.health()  # read late: without descriptors the relay starts late
        ended = RUNTIME.close(_END_WITHIN)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if ended:
        failing = {sink for sink, each in health.items() if each.failing_since is not None}
        sinks = sinks_of(settings, EMITTER.count)
        answering = [sink for sink in sinks if sink.name not in failing]
        for sink, each in _drain(settings, answering, RUNTIME.instance).items():
            earlier = health.get(sink, Health())
            each.delivered += earlier.delivered
            each.events += earlier.events
            each.ended += earlier.ended
            health[sink] = each
    _print_health(health, as_json=as_json)
    _print_what_is_left(settings, health)


# -- output ----------------------------------------------------------------------------------


def _telemetry(settings: Settings) -> str:
    if not (settings.otlp_traces or settings.otlp_logs):
        return ""
    return f" and to {settings.otlp_endpoint or 'the endpoint of OTEL_EXPORTER_OTLP_*'}"


def _print_outboxes(settings: Settings, urls: Iterable[str]) -> None:
    """Print on stderr the outboxes that programs leave to a relay, and that this one has not."""
    places = settings.spool, settings.named_store, settings.stream
    for url in urls:
        command = located(f"`{as_command('relay', outbox=url)}`", *places)
        complain(
            f"programs of this spool leave the outbox {url} to a relay, and this relay does not "
            f"drain it: {command} moves its events, unless another relay does"
        )


def _print_changes(health: Mapping[str, Health], failing: set[str]) -> None:
    """Print on stderr which sinks stopped answering, and which answer again."""
    for sink, each in health.items():
        if each.failing_since is not None and sink not in failing:
            failing.add(sink)
            complain(f"{sink}: {each.problem}; the records are kept, and the relay tries again")
        elif each.failing_since is None and sink in failing:
            failing.remove(sink)
            remark(f"{sink}: it answers again")


def _print_health(health: Mapping[str, Health], *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "sink": sink,
                "delivered": each.delivered,
                "events": each.events,
                "ended": each.ended,
                "problem": each.problem if each.failing_since is not None else None,
            }
            for sink, each in health.items()
        )
        return
    columns = {
        "sink": [Text(sink) for sink in health],
        "records delivered": [Text(number(each.delivered)) for each in health.values()],
        "events among them": [Text(number(each.events)) for each in health.values()],
    }
    print_table(columns, right=["records delivered", "events among them"])
    if ended := max((each.ended for each in health.values()), default=0):
        noted = plural(ended, "process has", "processes have")
        remark(f"noted that {noted} ended; calls that were open then are abandoned")


def _print_what_is_left(settings: Settings, health: Mapping[str, Health]) -> bool:
    """Print on stderr what could not be delivered; return whether anything is left."""
    for sink, each in health.items():
        if each.failing_since is not None:
            complain(f"{sink}: {each.problem}")
    for reason, count in EMITTER.losses.items():
        complain(f"{reason}: {plural(count, 'time')}: {EMITTER.problems[reason]}")
    left = _left(settings, health)
    for why, backlog in left.items():
        complain(f"left in {settings.spool} {why}: {backlog}")
    return bool(left) or any(each.failing_since is not None for each in health.values())


def _left(settings: Settings, health: Mapping[str, Health]) -> dict[str, Backlog]:
    """Return the backlog of orphaned segments, by what the records wait for."""
    left: dict[str, Backlog] = defaultdict(Backlog)
    here = settings.named_store
    for segment in read_spool(settings.spool):
        if not segment.orphaned:
            continue
        named, stream = segment.meta.get("store"), segment.meta.get("stream")
        for sink, backlog in segment.backlog.items():
            if not backlog.records:
                continue
            if not is_same_stream(stream, settings.stream) or (sink == "stream" not in health):
                why = f"for the stream {stream}; name that with --stream"
            elif not is_same_store(named, here):
                why = f"for the store {named}; name that with --store"
            elif sink in health:
                why = f"until {sink} answers; run this again then"
            else:
                why = f"for {sink}; name the endpoint with --otlp or OTEL_EXPORTER_OTLP_ENDPOINT"
            left[why].add(backlog)
    return left
