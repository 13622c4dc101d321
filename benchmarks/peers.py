"""Peers: libraries that a user may choose instead, each in a process, as its manual says.

None of them delivers anything over a network: exporters, writers and transports discard what they
are handed, files are local. That is kind to them: sidelight is measured with its delivery.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks.houses import Address, Subjects
from benchmarks.setups import (
    AbsentError,
    json_lines,
    needed,
    rows_of_sqlite,
    tracer_of_the_sdk,
)
from benchmarks.work import Subject, Work

SPAN: Final = "OpenTelemetry SDK span"


def inside(make: Callable[[str, str], contextlib.AbstractContextManager[Any]]) -> Subject:
    """The work inside a context manager."""

    def instrument(work: Work) -> Work:
        @functools.wraps(work)
        def call(artifact_id: str, organization_id: str, number: int) -> Any:
            with make(artifact_id, organization_id):
                return work(artifact_id, organization_id, number)

        return call

    return Subject.of(instrument)


def before(tell: Callable[[str, str], object]) -> Subject:
    """The work, and then a report of it."""

    def instrument(work: Work) -> Work:
        @functools.wraps(work)
        def call(artifact_id: str, organization_id: str, number: int) -> Any:
            value = work(artifact_id, organization_id, number)
            tell(artifact_id, organization_id)
            return value

        return call

    return Subject.of(instrument)


def discarding_processor() -> BatchSpanProcessor:
    """The SDK's batch processor, with an exporter that keeps nothing."""

    class Discard(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    return BatchSpanProcessor(Discard())


def opentelemetry(_directory: Path) -> Iterator[Subjects]:
    """A span of the SDK with a batch processor and an exporter that keeps nothing.

    Without attributes it is the measure for the ratios, although it says less than sidelight does:
    the event's two ids cost it two attributes more.
    """
    with tracer_of_the_sdk(discarding_processor()) as tracer:

        def plain(_artifact: str, _organization: str) -> Any:
            return tracer.start_as_current_span("work")

        def telling(artifact: str, organization: str) -> Any:
            attributes = {"artifact_id": artifact, "organization_id": organization}
            return tracer.start_as_current_span("work", attributes=attributes)

        yield {SPAN: inside(plain), f"{SPAN}, two attributes": inside(telling)}


def logfire(_directory: Path) -> Iterator[Subjects]:
    """A Logfire span, sent nowhere."""
    module = needed("logfire")
    module.configure(
        send_to_logfire=False,
        console=False,
        metrics=False,
        inspect_arguments=False,
        additional_span_processors=[discarding_processor()],
    )

    def span(artifact: str, organization: str) -> Any:
        return module.span("work", artifact_id=artifact, organization_id=organization)

    yield {"Logfire span": inside(span)}
    module.shutdown()


def structlog(directory: Path) -> Iterator[Subjects]:
    """One JSON line to a file."""
    with json_lines(directory) as (logger, _):

        def line(artifact: str, organization: str) -> None:
            logger.info("work", artifact_id=artifact, organization_id=organization)

        yield {"structlog JSON line": before(line)}


def eliot(directory: Path) -> Iterator[Subjects]:
    """An action (two JSON lines) to a file."""
    module = needed("eliot")
    with (directory / "eliot.log").open("wb") as file:
        module.to_file(file)

        def action(artifact: str, organization: str) -> Any:
            return module.start_action(
                action_type="work", artifact_id=artifact, organization_id=organization
            )

        yield {"Eliot action": inside(action)}


def ddtrace(_directory: Path) -> Iterator[Subjects]:
    """A ddtrace span, with a writer that discards it."""
    os.environ.update(
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
        DD_TRACE_STARTUP_LOGS="false",
        DD_CRASHTRACKING_ENABLED="false",
    )
    tracer = needed("ddtrace.trace").tracer
    aggregator = getattr(tracer, "_span_aggregator", None)
    if aggregator is None:
        raise AbsentError("this version of ddtrace hides its writer elsewhere: use another one")

    writer: Any = type(aggregator.writer)

    class Discard(writer):
        def __init__(self) -> None:
            """Open nothing."""

        def write(self, *_: object, **__: object) -> None:
            """Discard."""

        def flush_queue(self, *_: object, **__: object) -> None:
            """Nothing to flush."""

        def stop(self, *_: object, **__: object) -> None:
            """Nothing to stop."""

    aggregator.writer = Discard()  # the other one is not started before its first span

    def span(artifact: str, organization: str) -> Any:
        made = tracer.trace("work")
        made.set_tag("artifact_id", artifact)
        made.set_tag("organization_id", organization)
        return made

    yield {"ddtrace span": inside(span)}


def sentry(_directory: Path) -> Iterator[Subjects]:
    """A Sentry transaction for each call, and a span within one, with a discarding transport."""
    module = needed("sentry_sdk")
    transport: Any = needed("sentry_sdk.transport").Transport

    class Discard(transport):
        def capture_envelope(self, envelope: Any) -> None:
            """Discard."""

    module.init(
        dsn="https://public@localhost.invalid/1",
        transport=Discard,
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
    )
    outer: list[Any] = []
    told = 0

    def transaction(artifact: str, organization: str) -> Any:
        made = module.start_transaction(op="function", name="work")
        made.set_data("artifact_id", artifact)
        made.set_data("organization_id", organization)
        return made

    def span(artifact: str, organization: str) -> Any:
        nonlocal told
        if told % 500 == 0:  # a transaction holds 1,000 spans
            while outer:
                outer.pop().__exit__(None, None, None)
            outer.append(module.start_transaction(op="function", name="outer").__enter__())
        told += 1
        made = module.start_span(op="function", name="work")
        made.set_data("artifact_id", artifact)
        made.set_data("organization_id", organization)
        return made

    yield {"Sentry transaction": inside(transaction), "Sentry span": inside(span)}


def sqlite(directory: Path) -> Iterator[Subjects]:
    """The caller inserts the row itself: SQLite in WAL mode, one commit for each event."""
    with rows_of_sqlite(directory, counted=False) as insert:
        yield {"direct SQLite insert": before(insert)}


PEERS: Final = {
    house.__name__: Address("peers", house.__name__)
    for house in (logfire, structlog, eliot, ddtrace, sentry, sqlite)
}
