"""Spans of an application's own provider arrive through the spool in a real Collector."""

import random
import sys
import threading
import time
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState
from tests.support.platforms import needs_spool_files
from tests.support.proxy import Proxy
from tests.support.telemetry import (
    agree,
    child,
    configured,
    drain,
    eventually,
    exporting,
    finish,
    stored,
)

import sidelight
from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER
from sidelight.otel import SpoolSpanProcessor
from sidelight.runtime.process import RUNTIME
from sidelight.spool.directory import segments_in

pytestmark = pytest.mark.usefixtures("plain_otel")
REMOTE = SpanContext(
    0xE5, 0xF6, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("vendor", "x")])
)


class Application:
    """An application with its own provider, whose resource names it in the Collector."""

    def __init__(self):
        self.name = f"app-{random.getrandbits(64):x}"
        resource = Resource({"application": self.name, "tags": ["a", "b"]})
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.processor = SpoolSpanProcessor()
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("app", "1.0", attributes={"team": "red"})

    def spans(self, collector):
        spans = collector.spans(at_least=0)
        return [span for span in spans if span.resource.get("application") == self.name]

    def arrived(self, collector):
        """The numbers of its spans, sorted."""
        return sorted(span.attributes["n"] for span in self.spans(collector))

    def work(self, n):
        with self.tracer.start_as_current_span("work", attributes={"n": n}):
            pass


@pytest.fixture
def application():
    return Application()


def busy(tracer):
    """Make spans of every kind, with everything that a span can have."""
    with trace.use_span(NonRecordingSpan(REMOTE)):
        server = tracer.start_span("request", kind=SpanKind.SERVER, links=[trace.Link(REMOTE)])
    with trace.use_span(server, end_on_exit=True):
        server.set_attributes({"n": 1, "texts": ["a", "ä😀"], "real": 0.5, "raw": b"\0\xff"})
        server.set_attribute("deep", {"er": [1, None, {"x": True}]})
        for kind in SpanKind:
            with tracer.start_as_current_span(kind.name.lower(), kind=kind) as span:
                span.add_event("happened", {"why": "because"}, timestamp=time.time_ns())
                span.add_link(REMOTE, {"linked": True})
        try:
            with tracer.start_as_current_span("failing"):
                raise ValueError("no")
        except ValueError:
            pass
        for n in range(200):
            server.add_event(f"event {n}")
            server.set_attribute(f"attribute {n}", n)
    return 2 + len(SpanKind)


def test_spans_equal_those_that_the_sdk_sends(shared_collector, tmp_path, endpoint, application):
    exporter = OTLPSpanExporter(f"{shared_collector.http_endpoint}/v1/traces")
    application.provider.add_span_processor(SimpleSpanProcessor(exporter))
    with configured(tmp_path, otlp=endpoint):
        number = busy(application.tracer)
        assert application.provider.force_flush()
        assert not EMITTER.losses
    assert eventually(lambda: len(application.spans(shared_collector)) == 2 * number)
    by_id = {}
    for span in application.spans(shared_collector):
        by_id.setdefault(span.span_id, []).append(span)
    assert len(by_id) == number
    for mine, theirs in by_id.values():
        assert mine == theirs
    exporter.shutdown()


@emits("inner_done", n=arg.n)
def inner(n):
    return n


@emits("outer_done", artifact_id="art")
def outer(n):
    return inner(n)


def test_decorated_functions_make_their_spans_once(
    shared_collector, tmp_path, monkeypatch, application
):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", application.provider)
    with exporting(shared_collector, tmp_path, spans=0) as told:
        with application.tracer.start_as_current_span("request"):
            outer(1)
        assert application.provider.force_flush()
    agree(told)
    assert eventually(lambda: len(application.spans(shared_collector)) == 3)
    spans = {span.name: span for span in application.spans(shared_collector)}
    assert spans["inner"].parent_span_id == spans["outer"].span_id
    assert spans["outer"].parent_span_id == spans["request"].span_id
    assert spans["outer"].scope_name == "sidelight"
    event = told.event("outer_done")
    assert (event["trace_id"], event["span_id"]) == (
        spans["outer"].trace_id,
        spans["outer"].span_id,
    )


def test_a_collector_that_is_down_at_first(shared_collector, tmp_path, application):
    with (
        Proxy(shared_collector.http_address, mode="refuse") as proxy,
        configured(tmp_path, otlp=proxy.endpoint),
    ):
        for n in range(300):
            application.work(n)
        assert eventually(lambda: RUNTIME.health()["traces"].failing_since is not None)
        assert not application.processor.force_flush(50)
        assert sidelight.flush()  # which does not wait for it
        began = time.monotonic()
        application.provider.shutdown()
        assert time.monotonic() - began < 4.0  # it waits for 5 s only where the Collector answers
        assert application.arrived(shared_collector) == []
        application.work(300)  # after the shutdown as well
        proxy.mode = "pass"
        assert application.processor.force_flush(20_000)
        assert not EMITTER.losses
    assert eventually(lambda: application.arrived(shared_collector) == [*range(301)])
    assert not list(segments_in(tmp_path / "events.db-spool"))


def test_shutdown_delivers_and_closes_nothing(shared_collector, tmp_path, application):
    with configured(tmp_path, otlp=shared_collector.http_endpoint):
        for n in range(500):
            application.work(n)
        application.provider.shutdown()
        assert RUNTIME.relay is not None
        assert eventually(lambda: application.arrived(shared_collector) == [*range(500)])
        sidelight.emit("said")
        assert sidelight.flush()
    assert len(stored(tmp_path / "events.db")) == 1


def test_a_flush_without_spans(application):
    assert application.provider.force_flush()
    application.provider.shutdown()


@needs_spool_files
def test_an_external_relay(shared_collector, tmp_path, application):
    with configured(tmp_path, relay="external", otlp=False):
        for n in range(20):
            application.work(n)
        assert application.processor.force_flush(100) is False
        RUNTIME.close(1.0)
    relay = child(
        """
        from sidelight.cli.app import main
        sys.argv[1:] = ["relay", "--once"]
        main()
        """,
        tmp_path / "events.db",
        OTEL_EXPORTER_OTLP_ENDPOINT=shared_collector.http_endpoint,
    )
    ended = "noted that 1 process has ended; calls that were open then are abandoned\n"
    finish(relay, told=ended)
    assert eventually(lambda: application.arrived(shared_collector) == [*range(20)])


def test_spans_larger_than_a_request_may_be(shared_collector, tmp_path, endpoint, application):
    """No Collector accepts 128 spans of 150 KiB in one request; the sink halves it."""
    with configured(tmp_path, otlp=endpoint):
        for n in range(200):
            with application.tracer.start_as_current_span("work") as span:
                span.set_attributes({"n": n, "prompt": "p" * 150_000})
        assert application.processor.force_flush(30_000)
        assert not EMITTER.losses
    assert eventually(lambda: application.arrived(shared_collector) == [*range(200)])


def test_several_threads(shared_collector, tmp_path, application):
    def work(first):
        for n in range(first, first + 250):
            application.work(n)

    with configured(tmp_path, otlp=shared_collector.http_endpoint):
        threads = [threading.Thread(target=work, args=(250 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert application.processor.force_flush()
    assert eventually(lambda: application.arrived(shared_collector) == [*range(1000)])


PROGRAM = """
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from sidelight.otel import SpoolSpanProcessor

provider = TracerProvider(resource=Resource({{"application": "{name}"}}))
provider.add_span_processor(SpoolSpanProcessor())
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("app")

def work(n):
    with tracer.start_as_current_span("work", attributes={{"n": n, "pid": os.getpid()}}):
        pass
"""


def program(application, script, tmp_path, to):
    lines = "\n".join(line.removeprefix("        ") for line in script.splitlines())
    return child(
        PROGRAM.format(name=application.name) + lines,
        tmp_path / "events.db",
        OTEL_EXPORTER_OTLP_ENDPOINT=to,
    )


def test_configured_by_the_environment_alone(shared_collector, tmp_path, application):
    """The first span opens the spool; the exit of the process delivers the rest."""
    script = """
        for n in range(100):
            work(n)
        trace.get_tracer_provider().force_flush()
        work(100)
        """
    finish(program(application, script, tmp_path, shared_collector.http_endpoint))
    drain(tmp_path, shared_collector.http_endpoint)  # on a busy machine the end is too short
    assert eventually(lambda: application.arrived(shared_collector) == [*range(101)])


@needs_spool_files
def test_forked_children(shared_collector, tmp_path, application):
    script = """
        import warnings
        warnings.filterwarnings("ignore", ".*multi-threaded")  # Python 3.12: the parent's relay
        for n in range(10):
            work(n)
        assert trace.get_tracer_provider().force_flush(20_000)
        for child in range(1, 5):
            if os.fork() == 0:
                for n in range(10):
                    work(100 * child + n)
                trace.get_tracer_provider().force_flush(10_000)
                os._exit(0)
        for _ in range(4):
            os.wait()
        assert trace.get_tracer_provider().force_flush(10_000)
        """
    finish(program(application, script, tmp_path, shared_collector.http_endpoint))
    drain(tmp_path, shared_collector.http_endpoint)  # what a child has had no time to deliver
    wanted = sorted([*range(10), *(100 * c + n for c in range(1, 5) for n in range(10))])
    # A child may end within a request, whose records then arrive twice: OTLP is at least once.
    assert eventually(lambda: sorted({*application.arrived(shared_collector)}) == wanted)
    spans = application.spans(shared_collector)
    assert len({span.attributes["pid"] for span in spans}) == 5
    for span in spans:  # the SDK tells of the new process
        assert span.resource.get("process.pid", span.attributes["pid"]) == span.attributes["pid"]


def test_a_silent_collector_does_not_delay_the_exit(tmp_path, application):
    with Proxy(mode="silent") as proxy:
        script = """
        work(1)
        time.sleep(0.5)
        print(time.monotonic(), flush=True)
        """
        process = program(application, script, tmp_path, proxy.endpoint)
        process.wait(30)
        ended = time.monotonic()
        assert ended - float(finish(process)) < 20.0  # 1 s, and more on a busy machine
    assert list(segments_in(tmp_path / "events.db-spool"))


def test_it_is_not_imported_with_sidelight():
    process = child(
        "print('opentelemetry.sdk' in sys.modules, 'sidelight.otel' in sys.modules)", Path("none")
    )
    assert finish(process) == "False False\n"
    assert "sidelight.otel" in sys.modules
