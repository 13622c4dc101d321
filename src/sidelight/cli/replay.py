"""`sidelight replay`: send what the store holds again, to the stream or over OTLP."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from itertools import islice
from threading import Timer
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import typer

from sidelight.cli.options import AsJson, OfArtifact, OfType, Otlp, Since, StoreUrl, Stream, Until
from sidelight.cli.output import complain, print_json, remark, with_progress
from sidelight.cli.store.unknown import remark_unknown
from sidelight.exceptions import (
    ConfigurationError,
    QueryError,
    SinkRefusedError,
    SinkUnsupportedError,
)
from sidelight.exceptions import SinkUnavailableError as Unavailable
from sidelight.otlp import OtlpSettings
from sidelight.record import Moment, Static
from sidelight.runtime import require_stream_client
from sidelight.settings import Settings, settle, without_password
from sidelight.spool import Record, Sink
from sidelight.store import Event, Store, plural

_BATCH: Final = 2_000  # events
_RETRIES: Final = 30
_PAUSE: Final = 1.0  # seconds
_SILENT: Final = 0.7  # seconds
_RANDOM: Final = 0x3FFF_FFFF_FFFF_FFFF  # the random bits that an event's id holds


def replay(
    *,
    to: Annotated[
        Literal["stream", "otlp"], typer.Option("--to", help="Send to the stream, or over OTLP.")
    ],
    store: StoreUrl = None,
    stream: Stream = None,
    otlp: Otlp = None,
    since: Since = None,
    until: Until = None,
    types: OfType = None,
    artifact: OfArtifact = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Go on behind this event, which an earlier run named."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send events that the store holds again, with the same ids, in the order of their time.

    Over OTLP, events are sent as log records; the store keeps no spans. A run that is ended by
    SIGTERM or Ctrl-C names the last event that was sent: --after goes on behind it. Events that
    the endpoint rejects are not counted as sent, and the exit code is 1.

    Examples:
      sidelight replay --to stream --since 2026-07-25

      sidelight replay --to otlp --artifact note-7 --otlp http://localhost:4318
    """
    settings = settle(store, stream=stream, otlp=otlp)
    rejected: Counter[tuple[str, str]] = Counter()
    sink = _sink(to, settings, lambda *why: rejected.update([why]))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    sent, last = 0, after
    problem = ""
    try:
        with Store(settings.require_store()) as opened, closing(sink):
            chosen = opened.events(
                since=since, until=until, type=types or None, artifact_id=artifact
            )
            remark_unknown(opened, types)
            total = opened.size()
            events = iter(with_progress(_behind(chosen, after), "sending", total))
            while batch := [*islice(events, _BATCH)]:
                before = rejected.total()
                with _telling_a_wait(settings.stream if to == "stream" else settings.otlp_endpoint):
                    _send(sink, [record_of_event(event) for event in batch], settings)
                sent += len(batch) - (rejected.total() - before)
                last = batch[-1].event_id
    except (KeyboardInterrupt, Unavailable, SinkRefusedError) as error:
        problem = str(error) or "interrupted"
    problems = [_rejection(*why, count) for why, count in rejected.items()]
    if as_json:
        told = "; ".join([*problems, *filter(None, [problem])])
        print_json([{"sent": sent, "last": last, "problem": told or None}])
    else:
        remark(f"{plural(sent, 'event')} sent")
    if problem:
        problems.append(f"{problem}; go on with --after {last}" if last else problem)
    for each in problems:
        complain(each)
    if problems:
        raise typer.Exit(1)


def _rejection(reason: str, problem: str, count: int) -> str:
    return f"{reason}: {plural(count, 'time')}" + (f": {problem}" if problem else "")


def _sink(to: str, settings: Settings, count: Callable[[str, str], None]) -> Sink:
    """Make the sink.

    Args:
        to: "otlp" or "stream".
        settings: name the endpoint and the topic.
        count: counts each event that the endpoint rejects.

    Raises:
        ConfigurationError: no endpoint or topic is named, or the stream's client is missing.
    """
    if to == "otlp":
        if not settings.otlp_logs:
            raise ConfigurationError(
                setting="otlp", problem="no endpoint is named", remedy="name it with --otlp URL"
            )
        endpoint = OtlpSettings(False, True, settings.otlp_endpoint, settings.environment)
        return endpoint.sinks(count, lossless=True)[0]
    if settings.stream is None:
        raise ConfigurationError(
            setting="stream", problem="no topic is named", remedy="name it with --stream URL"
        )
    require_stream_client()
    from sidelight.stream import StreamSink  # noqa: PLC0415  # needs the client

    return StreamSink(settings.stream, settings.environment)


def _behind(events: Iterator[Event], after: str | None) -> Iterator[Event]:
    """Leave out the events up to one that an earlier run has sent."""
    if after is not None:
        for event in events:
            if event.event_id == after:
                break
        else:
            raise QueryError(
                argument="--after", problem=f"no event {after} is among them", remedy="leave it out"
            )
    yield from events


@contextmanager
def _telling_a_wait(address: str | None) -> Iterator[None]:
    """Tell on stderr what the command waits for, once the block takes longer than a moment."""
    where = "the OTLP endpoint" if address is None else without_password(address)
    timer = Timer(
        _SILENT, _tell_once, [f"waiting for {where}: no answer so far; half a minute at most"]
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


_tell_once: Final = cache(remark)


def _send(sink: Sink, records: list[Record], settings: Settings) -> None:
    """Send a batch, and try again while the sink does not answer.

    Raises:
        Unavailable: it does not answer for half a minute, or the endpoint takes no log records.
        SinkRefusedError: it will never take some event.
    """
    name = settings.environment.get("OTEL_SERVICE_NAME", "unknown_service")
    writer: Mapping[str, Any] = {"resource": {"service.name": name}}
    for attempt in range(_RETRIES):
        try:
            return sink.write(records, dict(writer))
        except SinkUnsupportedError:  # later attempts get the same answer
            raise
        except Unavailable:
            if attempt == _RETRIES - 1:
                raise
            time.sleep(_PAUSE)
    return None


def record_of_event(event: Event) -> Record:
    """Return the record of a stored event; the record has no span."""
    outcome: Any = event.outcome  # "abandoned" is an outcome of stored events only
    static = Static(event.type, event.point, event.mode, outcome, None)
    moment = Moment(
        time=event.occurred_ns - (event.duration_ns or 0),
        random=UUID(event.event_id).int & _RANDOM,
        artifact_id=event.artifact_id,
        organization_id=event.organization_id,
        duration=event.duration_ns,
        trace=None if event.trace_id is None else bytes.fromhex(event.trace_id),
        span_id=int(event.span_id or "0", 16),
        parent_id=0,
        flags=0,
        attributes=dict(event.attributes) or None,
        details=None,
    )
    return static, moment
