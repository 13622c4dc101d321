"""`sidelight consume`: take the events of a topic into a store."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sidelight.cli.collector import collecting_seldom
from sidelight.cli.metrics import exporting_metrics
from sidelight.cli.options import AsJson, SpoolDirectory, StoreUrl
from sidelight.cli.output import complain, print_json, remark
from sidelight.exceptions import ConfigurationError, SinkUnavailableError
from sidelight.host import monotonic
from sidelight.record import encode
from sidelight.runtime import observe_stored, require_stream_client
from sidelight.settings import Settings, settle
from sidelight.spool import Entry, Quarantine, prepare_directory
from sidelight.store import StoreSink, number, plural

if TYPE_CHECKING:
    from sidelight.stream import Progress, SetAside, StreamConsumer

_REPORT_EVERY: Final = 10.0  # seconds
_GIVE_UP_AFTER: Final = 60.0  # seconds
_LOOK_EVERY: Final = 1.0  # seconds between two questions whether the end is reached


def consume(
    stream: Annotated[
        str | None,
        typer.Argument(
            metavar="[STREAM]",
            envvar="SIDELIGHT_STREAM",
            help="The topic: kafka://host:9092,host:9092/topic.",
        ),
    ] = None,
    *,
    store: StoreUrl = None,
    group: Annotated[
        str,
        typer.Option(
            "--group", metavar="NAME", help="Join this group; its consumers share the partitions."
        ),
    ] = "sidelight",
    once: Annotated[
        bool, typer.Option("--once", help="Take what the topic holds now, then end.")
    ] = False,
    spool: SpoolDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Take the events of a topic into the store, each exactly once.

    Any number of consumers may share a group, on one host or on several. The store ignores an
    event that it has, so that a consumer may be killed at any time. While the store does not
    answer, the consumer waits and loses nothing.

    A message that is no event of sidelight, or that the store refuses, goes to the quarantine in
    the spool directory: see `sidelight spool quarantined`.

    The command runs until SIGTERM or Ctrl-C, and ends after the current batch.

    Examples:
      sidelight consume kafka://b1:9092/notes --store postgresql://db/events

      sidelight consume --once
    """
    settings = settle(store, stream=stream, spool=spool)
    if settings.stream is None:
        raise ConfigurationError(
            setting="stream",
            problem="no topic is named",
            remedy="write `sidelight consume kafka://host:9092/topic`",
        )
    require_stream_client()
    from sidelight.stream import (  # noqa: PLC0415  # needs the client
        StreamAddress,
        StreamConsumer,
        register,
    )

    ended: list[int] = []
    for number_of_signal in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number_of_signal, lambda got, _: ended.append(got))
    address = StreamAddress.parse(settings.stream)
    aside = _Aside(settings, address.topic)
    store_sink = StoreSink(settings.require_store(), aside.count, observe_stored)
    with exporting_metrics(), closing(store_sink) as sink:
        consumer = StreamConsumer(address, settings.environment, group, sink, aside)
        register(consumer.progress)
        try:
            with collecting_seldom():
                if once:
                    _run_once(consumer, lambda: bool(ended))
                else:
                    remark(f"consuming {address} into {settings.named_store} as one of {group}")
                    _run(consumer, lambda: bool(ended))
        finally:
            consumer.close()
            _report(consumer, aside, as_json=as_json)
    if once and (ended or aside.losses):
        raise typer.Exit(1)


def _run(consumer: StreamConsumer, halting: Callable[[], bool]) -> None:
    reported, before = monotonic(), 0
    failing: set[str] = set()
    while not halting():
        consumer.step(halting)
        _print_changes(consumer, failing)
        if (elapsed := monotonic() - reported) >= _REPORT_EVERY:
            stored = consumer.progress.stored
            with suppress(SinkUnavailableError):
                consumer.look_at_lag()
                remark(_summary(consumer.progress, (stored - before) / elapsed))
            reported, before = monotonic(), stored


def _summary(progress: Progress, rate: float) -> str:
    """Return what the consumer has done, and how far its group is behind."""
    text = f"{number(progress.stored)} events stored, {number(round(rate))}/s"
    if progress.set_aside:
        text += f", {number(progress.set_aside)} set aside"
    behind = {partition: lag for partition, lag in sorted(progress.lag.items()) if lag}
    text += f"; {plural(sum(behind.values()), 'message')} behind"
    farthest = sorted(behind, key=lambda partition: behind[partition])[-3:]
    each = (f"partition {partition}: {number(behind[partition])}" for partition in farthest[::-1])
    return f"{text} ({', '.join(each)})" if behind else text


def _run_once(consumer: StreamConsumer, halting: Callable[[], bool]) -> None:
    """Consume up to the ends that the partitions have now, whichever consumer reads them.

    Raises:
        SinkUnavailableError: the brokers have not answered for a minute.
    """
    ends = consumer.ends()
    failing: set[str] = set()
    looked = answered = monotonic()
    while not halting():
        found = consumer.step(halting)
        if not found or monotonic() - looked > _LOOK_EVERY:  # the topic may go on growing
            looked = monotonic()
            try:
                if consumer.has_reached(ends):
                    return
            except SinkUnavailableError:  # the group is being rebalanced, perhaps
                if monotonic() - answered > _GIVE_UP_AFTER:
                    raise
                continue
        answered = monotonic()
        _print_changes(consumer, failing)


def _print_changes(consumer: StreamConsumer, failing: set[str]) -> None:
    """Print on stderr which side stopped answering, and which answers again."""
    sides = {"store": consumer.progress.store, "stream": consumer.progress.stream}
    for side, health in sides.items():
        if health.failing_since is not None and side not in failing:
            failing.add(side)
            complain(f"{side}: {health.problem}; the consumer tries again")
        elif health.failing_since is None and side in failing:
            failing.remove(side)
            remark(f"{side}: it answers again")


def _report(consumer: StreamConsumer, aside: _Aside, *, as_json: bool) -> None:
    progress = consumer.progress
    if as_json:
        print_json(
            [
                {
                    "stored": progress.stored,
                    "set_aside": progress.set_aside,
                    "pruned": progress.pruned,
                    "erased": progress.erased,
                    "losses": dict(aside.losses),
                }
            ]
        )
        return
    remark(
        f"{plural(progress.stored, 'event')} stored, {number(progress.set_aside)} set aside,"
        f" {number(progress.pruned)} pruned before, {number(progress.erased)} erased before"
    )
    for reason, count in aside.losses.items():
        complain(f"{reason}: {plural(count, 'time')}: {aside.problems[reason]}")


class _Aside:
    """Keeps messages that have no place in the store, in the quarantine of the spool directory."""

    def __init__(self, settings: Settings, topic: str) -> None:
        prepare_directory(settings.spool)
        self._quarantine = Quarantine(settings.spool)
        self._store = settings.named_store
        self._topic = topic
        self.losses: Counter[str] = Counter()
        self.problems: dict[str, str] = {}

    def count(self, reason: str, problem: str) -> None:
        """Count a loss by reason; the progress tells what was erased."""
        if reason == "erased":
            return
        self.losses[reason] += 1
        self.problems[reason] = problem

    def __call__(self, message: SetAside) -> None:
        """Keep a message."""
        entry = Entry(
            kind="record",
            reason=message.reason,
            problem=message.problem,
            refused_by="store",
            sinks=("store",),
            at=time.time_ns(),
            writer={
                "store": self._store,
                "instance": "consumer",
                "pid": os.getpid(),
                "resource": {"service.name": message.service},
            },
            segment=f"{self._topic}[{message.partition}]",
            offset=message.offset,
            payload=encode(message.content),
        )
        try:
            self._quarantine.keep(entry)
        except OSError as error:
            self.count("not kept in quarantine", f"{message.reason}: {error.strerror}")
