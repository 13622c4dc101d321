"""Where the application has its own TracerProvider, that provider makes the spans."""

import asyncio
import contextvars
import http.client
import threading

import pytest
from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags
from tests.support.telemetry import (
    agree,
    child,
    configured,
    exporting,
    finish,
    stored,
)

import sidelight
from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER
from sidelight.otlp.connection import Route

pytestmark = pytest.mark.usefixtures("plain_otel")


@emits("inner_done", n=arg.n)
def inner(n):
    return n


@emits("outer_done", start="outer_started", failure="outer_failed", artifact_id="art")
def outer(n):
    if n < 0:
        raise ValueError(f"no {n}")
    return inner(n)


@emits("counted")
def count(n):
    for i in range(n):
        yield inner(i)


@emits("async_done")
async def outer_async(n):
    await asyncio.sleep(0)
    return await asyncio.gather(*(asyncio.create_task(one(i)) for i in range(n)))


async def one(n):
    await asyncio.sleep(0)
    return inner(n)


class Application:
    """An application's provider, and the spans that it finished."""

    def __init__(self, **options):
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("app")

    @property
    def spans(self):
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def install(self, monkeypatch):
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", self.provider)
        return self


@pytest.fixture
def application(monkeypatch):
    return Application().install(monkeypatch)


def ids(span):
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def test_its_spans_are_used(shared_collector, tmp_path, application):
    """No span of sidelight stands between the application's spans."""
    request = application.tracer.start_as_current_span("request")
    with exporting(shared_collector, tmp_path, spans=0) as told, request:
        outer(1)
    agree(told)
    spans = application.spans
    assert spans.keys() == {"request", "outer", "inner"}
    assert spans["outer"].parent.span_id == spans["request"].context.span_id
    assert spans["inner"].parent.span_id == spans["outer"].context.span_id
    assert spans["outer"].instrumentation_scope.name == "sidelight"
    assert spans["outer"].instrumentation_scope.version == sidelight.__version__
    assert spans["outer"].attributes == {
        "code.function.name": f"{__name__}.outer",
        "sidelight.artifact.id": "art",
    }
    assert spans["inner"].attributes["n"] == 1
    for name in ("outer", "inner"):
        assert spans[name].end_time == told.event(f"{name}_done")["occurred_at"]
    for kind, name in (
        ("outer_started", "outer"),
        ("outer_done", "outer"),
        ("inner_done", "inner"),
    ):
        event = told.event(kind)
        assert (event["trace_id"], event["span_id"]) == ids(spans[name])
        assert told.log(kind).flags & 1


def test_children_of_instrumented_libraries_nest(application, tmp_path):
    @emits("asked")
    def ask():
        with application.tracer.start_as_current_span("GET"):
            carrier = {}
            propagate.inject(carrier)
            return carrier

    with configured(tmp_path):
        carrier = ask()
    spans = application.spans
    (name,) = (n for n in spans if n.endswith("ask"))
    assert spans["GET"].parent.span_id == spans[name].context.span_id
    assert carrier["traceparent"].split("-")[1:3] == list(ids(spans["GET"]))


def test_an_error(application, tmp_path):
    with configured(tmp_path), pytest.raises(ValueError, match="no -1"):
        outer(-1)
    span = application.spans["outer"]
    assert (span.status.status_code, span.status.description) == (
        StatusCode.ERROR,
        "ValueError: no -1",
    )
    assert span.attributes["error.type"] == "ValueError"
    (event,) = span.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "ValueError"
    assert f'File "{__file__}"' in event.attributes["exception.stacktrace"]


def test_generators_and_tasks(application, tmp_path):
    with configured(tmp_path):
        assert list(count(2)) == [0, 1]
        assert asyncio.run(outer_async(2)) == [0, 1]
    finished = application.exporter.get_finished_spans()
    by_name = {span.name: span for span in finished}
    parents = sorted(span.parent.span_id for span in finished if span.name == "inner")
    ours = (by_name["count"].context.span_id, by_name["outer_async"].context.span_id)
    assert parents == sorted(ours * 2)
    assert by_name["count"].parent is None
    assert by_name["outer_async"].parent is None


def test_log_correlation_and_attributes(application, tmp_path):
    seen = {}

    @emits("looked")
    def look():
        span = trace.get_current_span()
        span.set_attribute("mine", 1)
        seen["context"] = span.get_span_context()

    with configured(tmp_path):
        look()
    (span,) = application.exporter.get_finished_spans()
    assert span.context == seen["context"]
    assert span.attributes["mine"] == 1


def test_a_provider_that_samples_nothing(monkeypatch, tmp_path):
    application = Application(sampler=ALWAYS_OFF).install(monkeypatch)
    with configured(tmp_path):
        outer(1)
        assert sidelight.flush(10.0)
    assert not application.spans
    traces = {event["trace_id"] for event in stored(tmp_path / "events.db")}
    assert len(traces) == 1
    assert None not in traces


def test_a_provider_that_is_installed_later(shared_collector, tmp_path, monkeypatch):
    with exporting(shared_collector, tmp_path, spans=2) as told:
        outer(1)
        application = Application().install(monkeypatch)
        outer(2)
        assert application.spans.keys() == {"outer", "inner"}
    assert {span.name for span in told.spans} == {"outer", "inner"}
    assert len({event["trace_id"] for event in told.events}) == 2


def test_spans_of_a_provider_that_is_not_global_nest(shared_collector, tmp_path):
    application = Application()

    @emits("between_done")
    def between():
        with application.tracer.start_as_current_span("local"):
            inner(1)

    request = application.tracer.start_as_current_span("request")
    with exporting(shared_collector, tmp_path) as told, request:
        between()
    agree(told)
    (ours,) = (span for span in told.spans if span.name.endswith("between"))
    spans = application.spans
    assert ours.parent_span_id == ids(spans["request"])[1]
    assert f"{spans['local'].parent.span_id:016x}" == ours.span_id
    assert told.span("inner").parent_span_id == ids(spans["local"])[1]
    assert len({ours.trace_id, told.span("inner").trace_id, ids(spans["local"])[0]}) == 1


def test_a_tracer_without_a_provider_does_no_harm(shared_collector, tmp_path):
    proxy = trace.get_tracer("an instrumented library")

    @emits("between_done")
    def between():
        with proxy.start_as_current_span("nothing"):
            inner(1)

    with exporting(shared_collector, tmp_path) as told:
        between()
    agree(told)
    (ours,) = (span for span in told.spans if span.name.endswith("between"))
    assert told.span("inner").parent_span_id == ours.span_id


class Broken(Exception):
    pass


class BrokenSpan(NonRecordingSpan):
    """A span that fails at one attribute."""

    def __init__(self, where):
        super().__init__(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)))
        self.where = where

    def is_recording(self):
        return True

    def __getattribute__(self, name):
        if name != "where" and name == self.where:
            raise Broken(name)
        return super().__getattribute__(name)


class BrokenProvider(trace.TracerProvider):
    def __init__(self, where):
        self.where = where

    def get_tracer(self, *args, **kwargs):
        if self.where == "get_tracer":
            raise Broken
        return BrokenTracer(self.where)


class BrokenTracer(trace.NoOpTracer):
    def __init__(self, where):
        self.where = where

    def start_span(self, *args, **kwargs):
        if self.where == "start_span":
            raise Broken
        return BrokenSpan(self.where)


@pytest.mark.parametrize(
    "where",
    [
        "get_tracer",
        "start_span",
        "get_span_context",
        "set_attribute",
        "add_event",
        "set_status",
        "end",
    ],
)
def test_a_broken_provider_is_counted_and_harms_no_call(tmp_path, monkeypatch, where):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", BrokenProvider(where))
    with configured(tmp_path):
        EMITTER.strict = False
        assert outer(1) == 1
        with pytest.raises(ValueError, match="no -1"):
            outer(-1)
        assert list(count(2)) == [0, 1]
        assert sidelight.flush(10.0)
        losses = dict(EMITTER.losses)
    assert len(stored(tmp_path / "events.db")) == 8
    if where == "get_span_context":
        assert not losses
    else:
        assert losses.keys() <= {"span not begun", "span not ended"}
        assert losses
    assert not trace.get_current_span().get_span_context().is_valid


def test_the_relays_exports_make_no_spans(shared_collector, tmp_path, monkeypatch):
    """No method of `http.client` that tracers instrument sends them."""
    application = Application().install(monkeypatch)
    seen, plain = [], Route.connect

    def connect(self, until):
        current = otel_context.get_current().items()
        seen.append(any("suppress" in key and value for key, value in current))
        return plain(self, until)

    def traced(*_, **__):
        raise AssertionError("a tracer would see this request")

    monkeypatch.setattr(Route, "connect", connect)
    for name in ("request", "putrequest", "getresponse"):
        monkeypatch.setattr(http.client.HTTPConnection, name, traced)
    with exporting(shared_collector, tmp_path, spans=0):
        outer(1)
    assert seen
    assert all(seen)
    assert application.spans.keys() == {"outer", "inner"}


def test_a_real_provider_set_after_decoration(tmp_path):
    process = child(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        @emits("task_done")
        def task(): return trace.get_current_span().is_recording()

        early = trace.get_tracer("early")          # a ProxyTracer
        assert task()
        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        with early.start_as_current_span("request"):
            assert task()
        inner, request = exporter.get_finished_spans()
        print(inner.name, inner.parent.span_id == request.context.span_id)
        """,
        tmp_path / "events.db",
    )
    assert finish(process) == "task True\n"


def test_the_provider_that_a_variable_names(tmp_path):
    process = child(
        """
        from opentelemetry import trace

        @emits("task_done")
        def task(): return trace.get_current_span()

        print(type(task()).__module__.partition(".")[2], type(trace.get_tracer_provider()).__name__)
        """,
        tmp_path / "events.db",
        OTEL_PYTHON_TRACER_PROVIDER="sdk_tracer_provider",
    )
    assert finish(process) == "sdk.trace TracerProvider\n"


def test_a_provider_that_cannot_be_loaded_is_tried_once(tmp_path):
    process = child(
        """
        import logging
        logging.disable()
        from opentelemetry import trace
        from sidelight.emission.emitter import EMITTER

        @emits("task_done")
        def task(): return trace.get_current_span().is_recording()

        print(task(), task(), dict(EMITTER.losses))
        sidelight.configure()
        print(task())
        """,
        tmp_path / "events.db",
        OTEL_PYTHON_TRACER_PROVIDER="nobody_knows",
    )
    said = finish(process)
    assert said.startswith("True True {'tracer provider not loaded': 1")
    assert said.endswith("True\n")


FOREIGN_CONTEXT = """
    import contextvars, threading
    from opentelemetry import context as otel, trace
    from opentelemetry.context.context import Context, _RuntimeContext

    class Foreign(_RuntimeContext):
        '''One that is no context variable, as tracers of other makes install.'''
        def __init__(self): self.stack = [Context()]
        def attach(self, context): self.stack.append(context); return len(self.stack) - 1
        def get_current(self): return self.stack[-1]
        def detach(self, token): del self.stack[token:]

    otel._RUNTIME_CONTEXT = Foreign()
    for name in [n for n in sys.modules if n.startswith("sidelight")]:
        del sys.modules[name]
    import sidelight
    from sidelight import emits
    from sidelight.emission.light_span import LightSpan
"""


def test_a_runtime_context_of_another_tracer(tmp_path):
    process = child(
        FOREIGN_CONTEXT
        + """
    from opentelemetry.sdk.trace import TracerProvider

    @emits("task_done")
    def task(): return trace.get_current_span()

    @emits("counted")
    def count():
        yield trace.get_current_span()

    assert not isinstance(task(), LightSpan)
    trace.set_tracer_provider(TracerProvider())
    tracer = trace.get_tracer("app")
    with tracer.start_as_current_span("request") as request:
        span = task()
        assert span.parent.span_id == request.get_span_context().span_id
        (span,) = count()
        assert span.parent.span_id == request.get_span_context().span_id
        assert trace.get_current_span() is request
    assert not trace.get_current_span().get_span_context().is_valid
    print("well")
""",
        tmp_path / "events.db",
    )
    assert finish(process) == "well\n"


def test_threads_with_a_copied_context(application, tmp_path):
    @emits("parent_done")
    def parent():
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(inner, 1))
        thread.start()
        thread.join()

    with configured(tmp_path):
        parent()
    spans = application.spans
    (name,) = (n for n in spans if n.endswith("parent"))
    assert spans["inner"].parent.span_id == spans[name].context.span_id
