"""A span of the application's own tracer leaves the spool as it entered, byte for byte."""

import logging
import threading
from collections.abc import Mapping
from enum import Enum, IntEnum
from types import MappingProxyType

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from tests.support.drawn_spans import ENCODES_NONE, attributes, limits, live, lives, names, texts
from tests.support.otlp_bytes import log_in, span_in, spans_request, values
from tests.support.platforms import needs_spool_files
from tests.support.telemetry import keeping

from sidelight import emits, testing
from sidelight.emission.emitter import EMITTER
from sidelight.exceptions import InstrumentationError
from sidelight.otel import SpanHead, SpoolSpanProcessor, origin_of
from sidelight.record.format import CUT, FRAME, MAX_PAYLOAD, SPAN, Static, decode, encode
from sidelight.runtime.process import RUNTIME
from sidelight.settings import settle

AT = 1_700_000_000_123_456_789
CONTEXT = SpanContext(0xA1, 0xB2, is_remote=False, trace_flags=TraceFlags(3))
ANOTHER = {"service.name": "the writer's"}


class Originals(SpanProcessor):
    """Keeps the spans that another exporter of the provider gets."""

    def __init__(self):
        self.spans = []

    def on_end(self, span):
        self.spans.append(span)


class Beside:
    """A provider with both processors, and the spans of each."""

    def __init__(self, kept, **options):
        self.kept = kept
        self.originals = Originals()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(self.originals)
        self.provider.add_span_processor(SpoolSpanProcessor())

    @property
    def exported(self):
        spans = [span_in(record) for record in self.kept.records]
        return [span for span in spans if span is not None]

    @property
    def request(self):
        return spans_request(self.kept.records, ANOTHER)

    def agree(self):
        mine, theirs = self.request, encode_spans(self.originals.spans)
        assert mine.SerializeToString(deterministic=True) == theirs.SerializeToString(
            deterministic=True
        )


@pytest.fixture
def kept():
    with keeping() as spool:
        yield spool


@pytest.fixture
def beside(kept):
    return Beside(kept)


# -- equal ---------------------------------------------------------------------------------------


class Keeping(Sampler):
    """Samples every span, with its parent's trace state."""

    def should_sample(
        self,
        parent_context,
        trace_id,
        name,
        kind=None,
        attributes=None,
        links=None,
        trace_state=None,
    ):
        parent = trace.get_current_span(parent_context).get_span_context()
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, parent.trace_state)

    def get_description(self):
        return "keeping"


@settings(deadline=None, max_examples=20)
@given(
    st.builds(Resource, attributes, texts),
    limits,
    st.lists(
        st.tuples(
            st.tuples(names, st.none() | texts, st.none() | texts, attributes),
            st.lists(lives(), max_size=3),
        ),
        max_size=3,
    ),
)
def test_any_span_is_restored(resource, limits, tracers):
    with keeping() as kept:
        beside = Beside(kept, resource=resource, span_limits=limits, sampler=Keeping())
        for scope, spans in tracers:
            for life in spans:
                live(beside.provider.get_tracer(*scope), life)
        beside.agree()
        assert not EMITTER.losses


def test_an_ordinary_span(beside):
    tracer = beside.provider.get_tracer("app", "1.2", "https://schema", {"a": 1})
    with (
        tracer.start_as_current_span("request", kind=SpanKind.SERVER),
        pytest.raises(ValueError, match="why"),
        tracer.start_as_current_span("query", attributes={"db": "sqlite"}) as span,
    ):
        span.add_event("asked", {"n": 1})
        raise ValueError("why")
    beside.agree()
    query, request = beside.exported
    assert query.parent_span_id == request.span_id
    assert values(query.events[1].attributes)["exception.message"] == "why"
    assert request.kind == SpanKind.SERVER.value + 1
    (scope,) = beside.request.resource_spans[0].scope_spans
    assert values(scope.scope.attributes) == {"a": 1}


def test_a_provider_keeps_its_resource(kept):
    """Not the resource of the process that wrote the segment."""
    theirs = Resource({"service.name": "billing", "tags": ["a", "b"]}, "https://schema/1")
    beside = Beside(kept, resource=theirs)
    beside.provider.get_tracer("app").start_span("work").end()
    beside.agree()
    (group,) = beside.request.resource_spans
    assert values(group.resource.attributes)["service.name"] == "billing"


def test_one_head_for_each_tracer(beside):
    tracers = [beside.provider.get_tracer(name) for name in ("one", "two")]
    for tracer in tracers * 3:
        tracer.start_span("work").end()
    beside.agree()
    assert len({id(static) for static, _ in beside.kept.records}) == 2
    (group,) = beside.request.resource_spans
    assert [len(scope.spans) for scope in group.scope_spans] == [3, 3]


def test_tracers_of_one_provider_are_one_group(kept):
    """Even where a resource does not equal itself."""
    beside = Beside(kept, resource=Resource({"numbers": [float("nan")]}))
    for name in ("one", "two"):
        beside.provider.get_tracer(name).start_span("work").end()
    beside.agree()
    (group,) = beside.request.resource_spans
    assert [scope.scope.name for scope in group.scope_spans] == ["one", "two"]


def test_a_resource_that_changes(beside):
    """As after a fork, where the provider describes the new process."""
    tracer = beside.provider.get_tracer("app")
    tracer.start_span("before").end()
    tracer.resource = Resource({"process.pid": 2})
    tracer.start_span("after").end()
    beside.agree()
    groups = beside.request.resource_spans
    assert [values(g.resource.attributes).get("process.pid") for g in groups] == [None, 2]


def test_any_number_of_tracers(beside):
    processor = SpoolSpanProcessor()
    for number in range(2500):
        processor.on_end(handmade(scope=InstrumentationScope(f"scope {number}")))
    assert len(processor._heads) <= 1000
    assert len(beside.kept.records) == 2500


# -- spans that are not written ----------------------------------------------------------------


def test_spans_that_are_not_sampled(kept):
    class Recording(Sampler):
        def should_sample(self, *_, **__):
            return SamplingResult(Decision.RECORD_ONLY)

        def get_description(self):
            return "recording"

    for sampler in (ALWAYS_OFF, Recording()):
        Beside(kept, sampler=sampler).provider.get_tracer("app").start_span("work").end()
    SpoolSpanProcessor().on_end(ReadableSpan("without a context"))
    assert not kept.records
    assert not EMITTER.losses


def test_no_event_comes_of_a_span(beside):
    beside.provider.get_tracer("app").start_span("work").end()
    assert log_in(beside.kept.records[0]) is None


def test_a_spool_that_is_nearly_full(beside):
    EMITTER.spans = False
    beside.provider.get_tracer("app").start_span("work").end()
    assert not beside.kept.records
    assert EMITTER.losses == {"spool nearly full: span left out": 1}


def test_a_decorated_function_has_one_span(beside, monkeypatch):
    @emits("work_done")
    def work():
        pass

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", beside.provider)
    work()
    beside.agree()
    assert [static.type for static, _ in beside.kept.records] == ["work_done", None]
    assert sum(bool(moment.flags & SPAN) for _, moment in beside.kept.records) == 1
    (span,), ((_, event), _) = beside.exported, beside.kept.records
    assert beside.request.resource_spans[0].scope_spans[0].scope.name == "sidelight"
    assert (span.trace_id, int.from_bytes(span.span_id, "big")) == (event.trace, event.span_id)


ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize("late", [False, True], ids=["configured before", "configured after"])
@pytest.mark.parametrize(
    ("relay", "environment", "kept_"),
    [
        ("thread", {}, False),
        ("thread", {ENDPOINT: "http://localhost:1"}, True),
        ("thread", {ENDPOINT: "http://localhost:1", "OTEL_TRACES_EXPORTER": "none"}, False),
        pytest.param("external", {}, True, marks=needs_spool_files),
    ],
)
def test_spans_that_have_nowhere_to_go(kept, tmp_path, caplog, relay, environment, kept_, late):
    """Warns at once; an external relay may have an endpoint that this process does not know."""
    wanted = settle(f"sqlite:///{tmp_path / 'e.db'}", relay=relay, environment=environment)
    RUNTIME.settings = None if late else wanted
    with caplog.at_level(logging.WARNING, "sidelight"):
        beside = Beside(kept)
        assert ("spans are neither kept nor exported" in caplog.text) is not (kept_ or late)
        RUNTIME.settings = wanted
        for _ in range(3):
            beside.provider.get_tracer("app").start_span("work").end()
    assert caplog.text.count("spans are neither kept nor exported") == (not kept_)
    assert len(kept.records) == 3 * kept_
    assert EMITTER.losses == ({} if kept_ else {"OTLP is off: span not kept": 3})
    if not kept_:
        assert ENDPOINT in EMITTER.problems["OTLP is off: span not kept"]


def test_disabled(kept, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("SIDELIGHT_DISABLED", "1")
    RUNTIME.settings = settle(f"sqlite:///{tmp_path / 'e.db'}", environment={})
    beside = Beside(kept)
    beside.provider.get_tracer("app").start_span("work").end()
    assert beside.originals.spans
    assert not kept.records
    assert not EMITTER.losses
    assert not caplog.text


def test_capture_includes_them(kept):
    beside = Beside(kept)
    with testing.capture() as recorded:
        beside.provider.get_tracer("app").start_span("work").end()
    (span,) = recorded.spans
    assert (span.name, span.point) == ("work", "app")
    assert not recorded.events


# -- spans that the SDK would not have made -------------------------------------------------------


def handmade(name="work", scope=None, context=CONTEXT, **fields):
    fields.setdefault("start_time", AT)
    fields.setdefault("end_time", AT + 5)
    return ReadableSpan(
        name, context=context, resource=Resource({}), instrumentation_scope=scope, **fields
    )


def test_an_sdk_with_other_private_attributes(kept, monkeypatch):
    monkeypatch.setattr("sidelight.otel._HAS_PRIVATE_FIELDS", False)
    beside = Beside(kept)
    tracer = beside.provider.get_tracer("app")
    with tracer.start_as_current_span("work", links=[Link(CONTEXT)]) as span:
        span.add_event("happened", {"a": 1})
        span.set_attribute("b", 2)
    tracer.start_span("nothing").end()
    beside.agree()


def through(kept, span):
    SpoolSpanProcessor().on_end(span)
    return spans_request(kept.records[-1:], ANOTHER)


def only(request):
    (span,) = request.resource_spans[0].scope_spans[0].spans
    return span


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Bytes(bytes):
    pass


class Colour(str, Enum):  # noqa: UP042  # its str() is another one
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Strange(Mapping):
    def __init__(self, **items):
        self.items_ = items

    def __getitem__(self, key):
        return self.items_[key]

    def __iter__(self):
        return iter(self.items_)

    def __len__(self):
        return len(self.items_)


@pytest.mark.parametrize(
    "span",
    [
        handmade(),
        handmade(attributes={}),
        handmade(attributes=Strange(a=1, b=Strange(c=[2]))),
        handmade(attributes=MappingProxyType({"a": 1})),
        handmade(attributes={"values": [Text("x" * 5000), Number(1), Real(0.5), Bytes(b"\0")]}),
        handmade(
            attributes={
                "values": [Colour.RED, Size.LARGE, True, ENCODES_NONE and None],
                "more": range(3),
            }
        ),
        handmade(name=Text("work")),
        handmade(start_time=None, end_time=None),
        handmade(start_time=AT, end_time=AT - 5),
        handmade(kind=SpanKind.CONSUMER, links=[Link(CONTEXT)]),
        handmade(scope=InstrumentationScope(Text("app"), Text("1"), None, {"a": Text("b")})),
    ],
    ids=lambda _: "span",
)
def test_spans_made_by_hand(kept, span):
    assert through(kept, span) == encode_spans([span])
    assert not EMITTER.losses


@pytest.mark.parametrize(
    ("span", "exported"),
    [
        (handmade(name="\ud800"), "\\ud800"),
        (handmade(attributes={"n": 2**63, "m": [2**64]}), "9223372036854775808"),
        (handmade(attributes={"n": 2**70, "m": {"deep": -(2**70)}}), "0x40000"),
        (handmade(attributes={"\ud800": "\ud800"}), "\\ud800"),
        (handmade(attributes={"o": object()}), "object object"),
        (handmade(start_time=float(AT), end_time=float(AT)), "start_time_unix_nano: 17000000"),
        (handmade(status=Status(StatusCode.ERROR, "\ud800")), "\\ud800"),
        (handmade(scope=InstrumentationScope("\ud800")), "\\ud800"),
    ],
)
def test_values_that_the_sdk_cannot_export_become_text(kept, span, exported):
    """The SDK drops the attribute, or the request with all its spans."""
    assert exported in str(through(kept, span)).replace("\\\\", "\\")
    assert not EMITTER.losses


class Hostile(Exception):
    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __len__ = __iter__ = __bool__ = __repr__


def test_a_hostile_value_costs_a_placeholder(kept):
    mine = values(only(through(kept, handmade(attributes={"a": Hostile(), "b": 1}))).attributes)
    assert mine["b"] == 1
    assert "Hostile" in mine["a"]


def test_a_value_inside_itself(kept):
    endless = []
    endless.append(endless)
    assert only(through(kept, handmade(attributes={"a": endless}))).name == "work"


class Broken(ReadableSpan):
    def __init__(self, error):
        super().__init__("broken", context=CONTEXT)
        self.error = error

    @property
    def kind(self):
        raise self.error


@pytest.mark.parametrize(
    "span",
    [
        Broken(ValueError("no kind")),
        Broken(MemoryError()),
        object(),
        handmade(context=SpanContext(1, 2**65, is_remote=False, trace_flags=TraceFlags(1))),
    ],
    ids=lambda span: type(span).__name__,
)
def test_a_failure_is_counted(kept, span):
    EMITTER.strict = False
    SpoolSpanProcessor().on_end(span)
    assert not kept.records
    assert EMITTER.losses == {"span not copied": 1}


def test_a_recursion_limit_is_counted(kept):
    EMITTER.strict = False
    SpoolSpanProcessor().on_end(Broken(RecursionError()))
    assert EMITTER.losses == {"recursion limit": 1}


def test_an_interrupt_passes(kept):
    with pytest.raises(KeyboardInterrupt):
        SpoolSpanProcessor().on_end(Broken(KeyboardInterrupt()))


def test_strict(kept):
    with pytest.raises(InstrumentationError, match="no kind"):
        SpoolSpanProcessor().on_end(Broken(ValueError("no kind")))


# -- spans too large for a record -----------------------------------------------------------------

KIB = "x" * 1024
LARGE = {
    "one long text": {"attributes": {"long": KIB * 1000, "short": 1}},
    "one long text of many bytes": {"attributes": {"long": "ä" * 300_000, "short": 1}},
    "many": {"attributes": {f"key {n}": KIB * 20 for n in range(40)} | {"short": 1}},
    "bytes": {"attributes": {"long": b"\0" * 1_000_000, "short": 1}},
    "deep": {"attributes": {"long": [[{"x": [KIB] * 1000}]], "short": 1}},
    "a name": {"name": KIB * 1000, "attributes": {"short": 1}},
    "a status": {"status": Status(StatusCode.ERROR, "ä" * 999_999), "attributes": {"short": 1}},
    "events": {"events": 300, "attributes": {"short": 1}},
    "links": {"links": 300, "attributes": {"short": 1}},
    "everything": {
        "name": "😀" * 999_999,
        "status": Status(StatusCode.ERROR, "😀" * 999_999),
        "attributes": {f"key {n}": "😀" * 9999 for n in range(99)} | {"short": 1},
        "events": 300,
        "links": 300,
        "scope": InstrumentationScope("😀" * 99_999, "😀" * 99_999, "😀" * 99_999),
    },
}


def large(events=0, links=0, **fields):
    given = {"text": "ä" * 4096}
    return handmade(
        events=[trace_event(f"event {n}", given) for n in range(events)],
        links=[Link(CONTEXT, given) for _ in range(links)],
        **fields,
    )


def trace_event(name, given):
    from opentelemetry.sdk.trace import Event  # noqa: PLC0415

    return Event(name, given, AT)


@pytest.mark.parametrize("case", LARGE)
def test_a_span_that_is_too_large_is_cut(kept, case):
    original = large(**LARGE[case])
    request = through(kept, original)
    mine, mine_attributes = only(request), values(only(request).attributes)
    assert len(kept.frames[-1]) <= MAX_PAYLOAD + FRAME.size
    assert kept.records[-1][1].flags & CUT
    assert EMITTER.losses == {"attributes too large": 1}
    assert mine_attributes["sidelight.truncated"] is True
    assert mine_attributes["short"] == 1
    assert mine.name[:100] == original.name[:100]
    assert mine.status.code == original.status.status_code.value
    for what in ("attributes", "events", "links"):
        kept_ = len(getattr(mine, what)) - (what == "attributes")
        assert getattr(mine, f"dropped_{what}_count") == len(getattr(original, what)) - kept_
    if "long" in original.attributes and isinstance(original.attributes["long"], str):
        assert mine_attributes["long"].endswith("…")
    assert request.ByteSize() < MAX_PAYLOAD


def test_items_that_limits_dropped_are_counted_too(kept):
    beside = Beside(kept, span_limits=SpanLimits(max_span_attributes=10, max_events=1))
    span = beside.provider.get_tracer("app").start_span("work")
    for n in range(12):
        span.set_attribute(f"long {n}", "x" * 30_000)
        span.add_event("event")
    span.end()
    (mine,) = beside.exported
    assert mine.dropped_attributes_count > 2
    assert len(mine.attributes) - 1 + mine.dropped_attributes_count == 12
    assert (len(mine.events), mine.dropped_events_count) == (1, 11)


def test_a_resource_too_large_leaves_room_for_spans(kept):
    resource = Resource({f"key {n}": KIB * 9 for n in range(99)} | {"service.name": "large"})
    span = Beside(kept, resource=resource).provider.get_tracer("app").start_span("work")
    span.set_attribute("text", KIB * 100)
    span.end()
    assert EMITTER.losses == {"attributes too large": 1}
    (group,) = spans_request(kept.records, ANOTHER).resource_spans
    assert values(group.resource.attributes)["service.name"] == "large"
    assert values(span_in(kept.records[0]).attributes) == {"text": KIB * 100}


# -- the format -----------------------------------------------------------------------------------


def test_records_of_an_older_sidelight_are_read():
    static = Static("a", "p:f", "scheduled", "succeeded", "f")
    moment = (AT, 1, None, None, 5, b"\1" * 16, 2, 0, 5, None, None)
    older = list(msgspec.msgpack.decode(encode(static)))[:5]
    assert decode(encode((older, moment))) == decode(encode((static, moment)))


def test_a_record_that_was_refused_can_be_written_again(kept):
    """As the quarantine does: encoded again after decoding."""
    span = handmade(scope=InstrumentationScope("app"), attributes={"a": (1, 2)})
    mine = through(kept, span)
    again = spans_request([decode(encode(kept.records[-1]))], ANOTHER)
    assert again == mine == encode_spans([span])


def test_a_head_is_encoded_once():
    origin, left_out = origin_of(InstrumentationScope("app"), Resource({"a": 1}))
    head = SpanHead(origin)
    assert left_out == 0
    static, _ = decode(head.encoded + encode((AT, 1, None, None, 5, None, 2, 0, 5, None, None)))
    assert (static.type, static.point, static.origin.resource) == (None, "app", {"a": 1})


def test_many_threads(kept):
    beside = Beside(kept)

    def work(number):
        for _ in range(200):
            beside.provider.get_tracer(f"tracer {number % 2}").start_span(f"work {number}").end()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(beside.exported) == 800
    assert {int.from_bytes(span.span_id, "big") for span in beside.exported} == {
        span.context.span_id for span in beside.originals.spans
    }
