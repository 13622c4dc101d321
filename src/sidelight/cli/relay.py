"""`sidelight relay`: deliver what processes have left in their spool."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Final

import typer

from sidelight.cli.code import import_all
from sidelight.cli.options import AsJson, Otlp, SpoolDirectory, StoreUrl
from sidelight.cli.output import complain, console, number, plural, print_json, remark, table
from sidelight.cli.spool.segments import Behind, look_at, settled, writers_of
from sidelight.emission import EMITTER, Ledger, Watermark
from sidelight.exceptions import ConfigurationError, SinkUnavailableError, SpoolError
from sidelight.record import random_bits
from sidelight.relay import Relay
from sidelight.runtime import RUNTIME, outboxes_of, sinks_of
from sidelight.settings import Settings, outbox_url, public_url, writer_meta
from sidelight.spool import Health, Sink, Spool, prepare_directory

_ENDS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_END_WITHIN: Final = 5.0  # seconds for what is left when a signal comes
_TELL_EVERY: Final = 1.0
_LOOK_EVERY: Final = 0.2


def relay(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Deliver what is there, say how much, and end.")
    ] = False,
    linger: Annotated[
        float,
        typer.Option(
            "--linger",
            metavar="SECONDS",
            min=0.0,
            help="Before the end, wait until no application writes any more; at most so long.",
        ),
    ] = 0.0,
    store: StoreUrl = None,
    spool: SpoolDirectory = None,
    otlp: Otlp = None,
    outbox: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            envvar="SIDELIGHT_OUTBOXES",
            help="A database whose transactions events join. May be repeated.",
        ),
    ] = None,
    catalogue: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE",
            help="Import what declares event types: events that are not so are marked.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Deliver what processes have left in their spool, to the store and over OTLP.

    Takes over what the dead have left, and reads along where a running process was configured with
    relay="external". Where no store is named, it is the one that the records themselves name. What
    a sink does not take stays in the spool. Any number of relays may work on one spool.

    With --outbox it also moves the events that have joined transactions of a business database
    (transaction=) to where all others go, as soon as those have committed.

    Without --once it runs until SIGTERM or Ctrl-C, and then delivers what is still there. With
    --once, it ends with 1 where something is left.

    Examples:
      sidelight relay --once --store sqlite:///events.db

      sidelight relay --spool /var/lib/shop/spool --otlp http://collector:4318

      sidelight relay --outbox postgresql://localhost/shop
    """
    if problems := import_all(catalogue or ()):
        raise ConfigurationError(
            setting="--catalogue", problem="; ".join(problems), remedy="name modules that import"
        )
    settings = replace(
        settled(spool, store, otlp, [] if spool is None else writers_of(spool)), role="relay"
    )
    if outbox:
        settings = replace(settings, outboxes=tuple(map(outbox_url, outbox)))
    if once:
        _deliver_once(settings, linger, as_json=as_json)
    else:
        _run(settings, linger, as_json=as_json)


def _deliver_once(settings: Settings, linger: float, *, as_json: bool) -> None:
    if not settings.spool.is_dir() and not settings.outboxes:
        raise SpoolError(
            directory=settings.spool,
            problem="it is not there",
            remedy="nothing was emitted yet, or name another with --spool or SIDELIGHT_SPOOL",
        )
    until = time.monotonic() + linger
    while time.monotonic() < until and _is_written(settings):
        time.sleep(_LOOK_EVERY)
    health = _drain(settings, sinks_of(settings, EMITTER.count), f"{random_bits(64):016x}")
    _tell(health, as_json=as_json)
    if _tell_what_is_left(settings, health):
        raise typer.Exit(1)


def _is_written(settings: Settings) -> bool:
    """Whether an application that emits into our store lives."""
    ours = public_url(settings.store)
    return any(
        meta.get("role") != "relay" and meta.get("store", ours) == ours
        for meta in writers_of(settings.spool, living=True)
    )


def _drain(settings: Settings, sinks: Sequence[Sink], instance: str) -> Mapping[str, Health]:
    """Deliver what there is; answers how each sink has done.

    Args:
        settings: of this process.
        sinks: where to.
        instance: under which this process reports what it found damaged or was refused.

    Raises:
        SpoolError: the spool cannot be used.
    """
    prepare_directory(settings.spool)
    spool = Spool(settings.spool, writer_meta(settings, instance))
    outboxes = outboxes_of(settings, spool.meta, EMITTER.count)
    relay = Relay(spool, sinks, Watermark(), count=EMITTER.count, outboxes=outboxes)
    try:
        with contextlib.suppress(SinkUnavailableError):  # `health` says which, and why
            relay.drain()
        if EMITTER.losses:
            Ledger(EMITTER).write(spool, last=True)
            with contextlib.suppress(SinkUnavailableError):
                relay.drain(retries=1)
    finally:
        relay.stop(0.0)
        spool.close()
    return relay.health()


def _tell_what_is_left(settings: Settings, health: Mapping[str, Health]) -> bool:
    """Say on stderr what could not be delivered, and whether there is any."""
    for sink, each in health.items():
        if each.failing_since is not None:
            complain(f"{sink}: {each.problem}")
    for reason, count in EMITTER.losses.items():
        complain(f"{reason}: {plural(count, 'time')}: {EMITTER.problems[reason]}")
    left = _left(settings, health)
    for why, behind in left.items():
        complain(f"left in {settings.spool} {why}: {behind}")
    return bool(left) or any(each.failing_since is not None for each in health.values())


def _left(settings: Settings, health: Mapping[str, Health]) -> dict[str, Behind]:
    """What nobody has taken, by what it waits for."""
    left: dict[str, Behind] = defaultdict(Behind)
    ours = public_url(settings.store)
    for segment in look_at(settings.spool):
        theirs = str(segment.meta.get("store", ours))
        for sink, behind in segment.behind.items():
            if segment.owned or not behind.records:
                continue
            if theirs != ours:
                why = f"for the store {theirs}; name that with --store"
            elif sink in health:
                why = f"until {sink} answers; run this again then"
            else:
                why = f"for {sink}; name the endpoint with --otlp or OTEL_EXPORTER_OTLP_ENDPOINT"
            left[why].add(behind)
    return left


def _run(settings: Settings, linger: float, *, as_json: bool) -> None:
    """Relay until a signal says to end; the signals are waited for, never handled.

    The application may have ended a moment before. What it has left since the last search for
    orphaned segments is delivered as well, because the volume may end with this process.
    """
    prepare_directory(settings.spool)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    try:
        spool = RUNTIME.configure(settings)
        remark(f"relaying {settings.spool} to {public_url(settings.store)}{_telemetry(settings)}")
        failing: set[str] = set()
        while signal.sigtimedwait(_ENDS, _TELL_EVERY) is None:
            _tell_changes(RUNTIME.health(), failing)
        until = time.monotonic() + linger
        while time.monotonic() < until and _is_written(settings):
            if signal.sigtimedwait(_ENDS, _LOOK_EVERY) is not None:  # impatience
                break
        health = RUNTIME.health()  # without descriptors, a relay starts late
        ended = RUNTIME.close(_END_WITHIN)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if ended:
        failing = {sink for sink, each in health.items() if each.failing_since is not None}
        sinks = sinks_of(settings, EMITTER.count)
        answering = [sink for sink in sinks if sink.name not in failing]
        for sink, each in _drain(settings, answering, spool.meta["instance"]).items():
            each.delivered += health.get(sink, Health()).delivered
            health[sink] = each
    _tell(health, as_json=as_json)
    _tell_what_is_left(settings, health)


def _telemetry(settings: Settings) -> str:
    if not (settings.otlp_traces or settings.otlp_logs):
        return ""
    return f" and to {settings.otlp_endpoint or 'where OTEL_EXPORTER_OTLP_* says'}"


def _tell_changes(health: Mapping[str, Health], failing: set[str]) -> None:
    """Say on stderr which sinks have ceased to answer, and which answer again."""
    for sink, each in health.items():
        if each.failing_since is not None and sink not in failing:
            failing.add(sink)
            complain(f"{sink}: {each.problem}; what it has not taken is kept, and tried again")
        elif each.failing_since is None and sink in failing:
            failing.remove(sink)
            remark(f"{sink}: it answers again")


def _tell(health: Mapping[str, Health], *, as_json: bool) -> None:
    if as_json:
        print_json(_plain(health))
        return
    rows = table("sink", "records delivered", right=["records delivered"])
    for sink, each in health.items():
        rows.add_row(sink, number(each.delivered))
    console().print(rows)


def _plain(health: Mapping[str, Health]) -> list[dict[str, object]]:
    return [
        {
            "sink": sink,
            "delivered": each.delivered,
            "problem": each.problem if each.failing_since is not None else None,
        }
        for sink, each in health.items()
    ]
