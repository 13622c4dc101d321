"""Other tracers: their set-up, and the spans that they have sent to an intake.

Each is configured as its manual says, with its own exporter: a `Proxy` in the mode "answer"
stands in for its servers, and keeps what came.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from tests.support.http_wire import Request

ANSWER = b'{"version": "7.70.0", "endpoints": ["/v0.4/traces"], "rate_by_service": {}}'
"""The answer of all servers to every request; only Datadog's library reads it."""

PIPELINE = """
def plain(n, thing):
    with span("work", n=n):
        with span("step", n=n):
            pass
        if isinstance(thing, BaseException):
            raise thing
        return thing

async def step_async(n):
    with span("step", n=n):
        await sleep(0)

async def plain_async(n, thing):
    with span("work", n=n):
        await sleep(0)
        await asyncio.gather(step_async(n), step_async(n))
        if isinstance(thing, BaseException):
            raise thing
        return thing

@emits("stepped", artifact_id=arg.n)
def steps(n):
    for _ in range(2):
        with span("step", n=n):
            pass
        yield

def go(n):
    for _ in steps(n):
        with span("between", n=n):
            pass

call = Caller.call

async def traced(self, n, kind):
    with span("call", n=n, kind=kind):
        await call(self, n, kind)
        go(n)
        with span("after", n=n):
            pass
    go(n)

Caller.call = traced
decorate()
"""
"""The calls of `tests.support.emitting`, of which each step makes a span: whose child that is says
what was current there. Generators are run within a span and without one."""

OTLP = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "{intake}",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_BSP_MAX_QUEUE_SIZE": "100000",  # it drops what a busy machine has not sent in time
}
DATADOG = {
    "DD_TRACE_AGENT_URL": "{intake}",
    "DD_TRACE_API_VERSION": "v0.4",
    "DD_TRACE_STARTUP_LOGS": "false",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_CRASHTRACKING_ENABLED": "false",
    "DD_TRACE_AGENT_TIMEOUT_SECONDS": "30",
}
BY_DATADOG = """
from ddtrace.trace import tracer

def span(name, **attributes):
    made = tracer.trace(name)
    made.set_tags(attributes)
    return made
"""
BY_SENTRY = """
import sentry_sdk

sentry_sdk.init(
    dsn=os.environ["INTAKE"].replace("//", "//public@") + "/1",
    traces_sample_rate=1.0,
    transport_queue_size=100_000,  # it drops what a busy machine has not sent in time
    shutdown_timeout=30,
)

def span(name, **attributes):
    begin = sentry_sdk.start_span if sentry_sdk.get_current_span() else sentry_sdk.start_transaction
    made = begin(op="function", name=name)
    for key, value in attributes.items():
        made.set_data(key, value)
    return made
"""
BY_OPENTELEMETRY = """
from opentelemetry import trace

def span(name, **attributes):
    return trace.get_tracer("application").start_as_current_span(name, attributes=attributes)
"""
BY_LOGFIRE = """
import logfire

logfire.configure(send_to_logfire=False, console=False, inspect_arguments=False)

def span(name, **attributes):
    return logfire.span(name, **attributes)
"""
_OURS = "code.function.name"


@dataclass(frozen=True)
class Span:
    """One that was exported; ids are in lower-case hexadecimal, as the store has them."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    attributes: Mapping[str, Any]

    @property
    def is_ours(self) -> bool:
        """Whether it was made for a decorated call."""
        return _OURS in self.attributes


@dataclass(frozen=True)
class Tracer:
    """One way to trace an application.

    Attributes:
        prelude: Python that defines ``span(name, **attributes)``, a context manager.
        read: finds the spans in what the intake has been sent.
        environment: ``{intake}`` is the URL of the intake.
        launcher: the command, beside the interpreter, that starts it.
        shows: whether its spans are OpenTelemetry's current ones as well: events then name them.
        provides: whether it is the application's TracerProvider, and so makes our spans too.
    """

    prelude: str
    read: Callable[[Iterable[Request]], Iterator[Span]]
    environment: Mapping[str, str] = field(default_factory=dict)
    launcher: str | None = None
    shows: bool = False
    provides: bool = False


def body_of(request: Request) -> bytes:
    """The requests, unpacked."""
    packed = request.headers.get("content-encoding") == "gzip"
    return gzip.decompress(request.body) if packed else request.body


def of_datadog(requests: Iterable[Request]) -> Iterator[Span]:
    """The upper half of a trace's id is a tag of its first span."""
    sent = [request for request in requests if request.path == "/v0.4/traces"]
    traces = [trace for request in sent for trace in msgspec.msgpack.decode(body_of(request))]
    upper = {
        span["trace_id"]: span["meta"]["_dd.p.tid"]
        for trace in traces
        for span in trace
        if "_dd.p.tid" in span.get("meta", ())
    }
    for span in (span for trace in traces for span in trace):
        tags = {**(span.get("meta") or {}), **(span.get("metrics") or {})}
        yield Span(
            f"{upper[span['trace_id']]}{span['trace_id']:016x}",
            f"{span['span_id']:016x}",
            f"{span['parent_id']:016x}" if span.get("parent_id") else None,
            span["name"],
            {
                "error": span.get("error", 0),
                "type": span.get("type"),
                **{key: tag for key, tag in tags.items() if not _of_the_process(key)},
            },
        )


def _of_the_process(tag: str) -> bool:
    """Tags of the process and the sampler, on the first span that a process has in a trace."""
    return tag.startswith("_") or tag in {"runtime-id", "process_id", "language"}


def of_sentry(requests: Iterable[Request]) -> Iterator[Span]:
    """A transaction is the first span of those in it."""
    for request in requests:
        if not request.path.endswith("/envelope/"):
            continue
        lines = [json.loads(line) for line in body_of(request).splitlines() if line]
        for item in (
            line for line in lines if line.get("type") == "transaction" and "spans" in line
        ):
            first = {**item["contexts"]["trace"], "description": item["transaction"]}
            for span in (first, *item["spans"]):
                told = {"status": span.get("status"), "op": span["op"], **span.get("data", {})}
                yield Span(
                    span["trace_id"],
                    span["span_id"],
                    span["parent_span_id"],
                    span["description"],
                    {key: value for key, value in told.items() if not key.startswith("thread.")},
                )


def of_otlp(requests: Iterable[Request]) -> Iterator[Span]:
    """Spans of all scopes."""
    for request in requests:
        if request.path != "/v1/traces":
            continue
        for resource in ExportTraceServiceRequest.FromString(body_of(request)).resource_spans:
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                told = {each.key: _plain(each.value) for each in span.attributes}
                events = [event.name for event in span.events]
                yield Span(
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex() or None,
                    span.name,
                    {**told, "status": str(span.status), "events": events},
                )


def _plain(value: AnyValue) -> Any:
    """A number or a text; a list as text."""
    found = getattr(value, value.WhichOneof("value"))
    return found if isinstance(found, int | float | str) else str(found)


TRACERS = {
    "ddtrace": Tracer(BY_DATADOG, of_datadog, {**DATADOG, **OTLP}, "ddtrace-run"),
    "ddtrace, OpenTelemetry": Tracer(
        BY_DATADOG,
        of_datadog,
        {**DATADOG, "DD_TRACE_OTEL_ENABLED": "true"},
        "ddtrace-run",
        shows=True,
        provides=True,
    ),
    "ddtrace, its context alone": Tracer(
        BY_DATADOG,
        of_datadog,
        {**DATADOG, "OTEL_PYTHON_CONTEXT": "ddcontextvars_context"},
        "ddtrace-run",
        shows=True,
    ),
    "Sentry": Tracer(BY_SENTRY, of_sentry, {"INTAKE": "{intake}"}),
    "Logfire": Tracer(BY_LOGFIRE, of_otlp, OTLP, shows=True, provides=True),
    "opentelemetry-instrument": Tracer(
        BY_OPENTELEMETRY, of_otlp, OTLP, "opentelemetry-instrument", shows=True, provides=True
    ),
}


def trees(spans: Sequence[Span]) -> Counter[str]:
    """The application's own spans without sidelight's, a text for each tree."""
    known = {span.span_id: span for span in spans}
    below: dict[str | None, list[Span]] = defaultdict(list)
    for span in spans:
        if not span.is_ours:
            below[_above(span, known)].append(span)
    return Counter("\n".join(_drawn(root, below)) for root in below[None])


def _above(span: Span, known: Mapping[str, Span]) -> str | None:
    parent = known.get(span.parent_id or "")
    while parent is not None and parent.is_ours:
        parent = known.get(parent.parent_id or "")
    return None if parent is None else parent.span_id


def _drawn(span: Span, below: Mapping[str | None, list[Span]]) -> list[str]:
    branches = sorted(_drawn(child, below) for child in below.get(span.span_id, ()))
    told = json.dumps(span.attributes, sort_keys=True)
    return [f"{span.name} {told}", *(f"  {line}" for branch in branches for line in branch)]
