"""A span written from its record equals the span that the SDK makes and encodes."""

import pytest
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)
from tests.support.drawn_spans import COUNTS_EMPTY_KEYS, TAKES_BYTES, TAKES_NESTED
from tests.support.otlp_bytes import DESCRIBED, by_the_sdk, log_in, span_in, spans_request, values
from tests.support.telemetry import keeping

from sidelight import arg, emits
from sidelight.emission.emitter import EMITTER
from sidelight.emission.tracing import TRACING
from sidelight.otlp.fields import event_name
from sidelight.otlp.requests import encode_resource
from sidelight.record.format import CUT, Moment, Static, event_id
from sidelight.record.limits import Limits, limits_from, limits_of

AT = 1_700_000_000_123_456_789
CONTEXT = SpanContext(0xA1, 0xB2, is_remote=False, trace_flags=TraceFlags(1))
LINKED = SpanContext(0xC3, 0xD4, is_remote=False, trace_flags=TraceFlags(1))
REMOTE = SpanContext(
    0xE5,
    0xF6,
    is_remote=True,
    trace_flags=TraceFlags(3),
    trace_state=TraceState([("vendor", "x"), ("other", "y")]),
)


def nothing(span):
    pass


def attributes(span):
    span.set_attribute("text", "ä€😀")
    span.set_attributes({"int": -5, "float": 0.25, "yes": True, "no": False})
    span.set_attributes({"texts": ["a", "b"], "ints": (1, 2), "empty": []})
    span.set_attribute("again", 1)
    span.set_attribute("after", 1)
    span.set_attribute("again", 2)
    if COUNTS_EMPTY_KEYS:
        span.set_attribute("", "no key")


def nested_attributes(span):
    if TAKES_BYTES:
        span.set_attribute("bytes", b"\0\xff")
    if TAKES_NESTED:
        span.set_attributes({"deep": {"er": [1, {"x": 2.0}]}, "mixed": [1, "two", True]})


def many_attributes(span):
    for index in range(200):
        span.set_attribute(f"key {index}", index)
    span.set_attribute("key 150", "moved to the end")


def long_attributes(span):
    span.set_attribute("text", "0123456789")
    span.set_attribute("texts", ["0123456789", "short"])
    span.set_attribute("number", 1234567890)
    span.add_event("long", {"text": "0123456789"}, AT)
    span.add_link(LINKED, {"text": "0123456789"})


def events(span):
    span.add_event("one", {"a": 1, "b": ["x"]}, timestamp=AT)
    span.add_event("two", timestamp=AT + 1)
    span.add_event("zero", timestamp=0)


def many_events(span):
    for index in range(200):
        span.add_event(f"event {index}", {f"k{i}": i for i in range(150)}, timestamp=AT + index)


def links(span):
    span.add_link(LINKED, {"why": "because"})
    span.add_link(REMOTE)
    span.add_link(SpanContext(0, 0, is_remote=False))
    span.add_link(SpanContext(0, 0, is_remote=False), {"kept": "for its attribute"})


def many_links(span):
    for index in range(1, 200):
        span.add_link(
            SpanContext(index, index, is_remote=bool(index % 2)), {f"k{i}": i for i in range(150)}
        )


def names(span):
    span.update_name("first")
    span.update_name("second")


def status_ok(span):
    span.set_status(StatusCode.ERROR, "not yet")
    span.set_status(Status(StatusCode.OK))
    span.set_status(StatusCode.ERROR, "too late")


def status_error(span):
    span.set_status(Status(StatusCode.ERROR, "broken"))
    span.set_status(StatusCode.UNSET)


def handled_exception(span):
    try:
        raise KeyError("handled")
    except KeyError as error:
        span.record_exception(error, {"more": 1}, timestamp=AT, escaped=True)


DEEDS = (
    nothing,
    attributes,
    nested_attributes,
    many_attributes,
    long_attributes,
    events,
    many_events,
    links,
    many_links,
    names,
    status_ok,
    status_error,
    handled_exception,
)
ENVIRONMENTS = {
    "no limits given": {},
    "few": {
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "3",
        "OTEL_SPAN_EVENT_COUNT_LIMIT": "2",
        "OTEL_SPAN_LINK_COUNT_LIMIT": "1",
        "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "1",
        "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "0",
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "6",
    },
    "none": {
        "OTEL_ATTRIBUTE_COUNT_LIMIT": "0",
        "OTEL_SPAN_EVENT_COUNT_LIMIT": "0",
        "OTEL_SPAN_LINK_COUNT_LIMIT": "0",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "0",
    },
    "endless": {
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "",
        "OTEL_SPAN_EVENT_COUNT_LIMIT": "",
        "OTEL_SPAN_LINK_COUNT_LIMIT": "",
        "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "",
    },
    "all alike": {"OTEL_ATTRIBUTE_COUNT_LIMIT": "2", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "3"},
}


@pytest.fixture
def kept(monkeypatch):
    for name in ENVIRONMENTS["few"] | ENVIRONMENTS["none"]:
        monkeypatch.delenv(name, raising=False)
    with keeping() as spool:
        yield spool
    TRACING.configure({})


@emits("deed_done")
def under_light(deed):
    span = trace.get_current_span()
    deed(span)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
def test_equal_to_the_sdk(kept, monkeypatch, deed, environment):
    for name, value in ENVIRONMENTS[environment].items():
        monkeypatch.setenv(name, value)
    given = limits_from(ENVIRONMENTS[environment])
    TRACING.configure(ENVIRONMENTS[environment])
    under_light(deed)
    (record,) = kept.records
    ours = spans_request([record], DESCRIBED, limits_of({"limits": list(given)}))
    assert ours == by_the_sdk(deed, record)


@pytest.mark.parametrize("remote", [True, False])
def test_a_parent_is_equal_too(kept, remote):
    context = SpanContext(
        REMOTE.trace_id, REMOTE.span_id, remote, REMOTE.trace_flags, REMOTE.trace_state
    )
    parent = NonRecordingSpan(context)
    with trace.use_span(parent):
        under_light(attributes)
    assert spans_request(kept.records, DESCRIBED) == by_the_sdk(attributes, kept.records[0], parent)


def test_under_a_light_parent(kept):
    @emits("outer_done")
    def outer():
        under_light(nothing)
        return trace.get_current_span().get_span_context()

    context = outer()
    inner, _ = kept.records
    theirs = by_the_sdk(nothing, inner, NonRecordingSpan(context))
    assert spans_request([inner], DESCRIBED) == theirs


def static_of(**changes):
    fields = {
        "type": "artifact_received",
        "point": "voice_notes.artifacts:create_artifact",
        "mode": "scheduled",
        "outcome": "succeeded",
        "span_name": "create_artifact",
    }
    return Static(**(fields | changes))


def moment_of(**changes):
    fields = {
        "time": AT,
        "random": 5,
        "artifact_id": "a1",
        "organization_id": "o1",
        "duration": 1000,
        "trace": (7).to_bytes(16, "big"),
        "span_id": 8,
        "parent_id": 0,
        "flags": 5,
        "attributes": {"colour": "red"},
        "details": None,
    }
    return Moment(**(fields | changes))


def test_a_log_record():
    log = log_in((static_of(), moment_of()), observed=AT + 2000)
    assert log.event_name == "voice_notes.artifact.received"
    assert (log.time_unix_nano, log.observed_time_unix_nano) == (AT + 1000, AT + 2000)
    assert log.body.string_value == "artifact_received"
    assert (log.trace_id, log.span_id) == ((7).to_bytes(16, "big"), (8).to_bytes(8, "big"))
    assert log.flags == 1
    assert (log.severity_number, log.severity_text) == (SeverityNumber.INFO.value, "INFO")
    assert values(log.attributes) == {
        "colour": "red",
        "code.function.name": "voice_notes.artifacts.create_artifact",
        "sidelight.mode": "scheduled",
        "sidelight.outcome": "succeeded",
        "sidelight.duration": 1000,
        "sidelight.artifact.id": "a1",
        "sidelight.organization.id": "o1",
        "sidelight.event.type": "artifact_received",
        "log.record.uid": event_id(AT + 1000, 5),
    }


def test_a_log_record_of_a_failure():
    details = {"error": ["builtins.ValueError", "why", [["file.py", 3, "work"]]]}
    log = log_in((static_of(outcome="failed"), moment_of(details=details)))
    attributes = values(log.attributes)
    assert log.severity_number == SeverityNumber.ERROR.value
    assert attributes["error.type"] == attributes["exception.type"] == "builtins.ValueError"
    assert attributes["exception.message"] == "why"
    assert attributes["exception.stacktrace"].splitlines() == [
        "Traceback (most recent call last):",
        '  File "file.py", line 3, in work',
        "builtins.ValueError: why",
    ]


def test_a_log_record_never_takes_the_current_span():
    with trace.use_span(NonRecordingSpan(REMOTE)):
        log = log_in((static_of(), moment_of(trace=None, span_id=0, flags=0)))
    assert not log.trace_id
    assert not log.span_id


def test_limits_of_a_log_record_keep_what_identifies_it():
    log = log_in((static_of(), moment_of()), Limits(log_attributes=2, log_length=3))
    kept = values(log.attributes)
    assert list(kept) == ["sidelight.event.type", "log.record.uid"]
    assert kept["sidelight.event.type"] == "art"
    assert log.dropped_attributes_count == 7


@pytest.mark.parametrize(
    ("static", "moment"),
    [
        (static_of(), moment_of(flags=4)),
        (static_of(), moment_of(trace=None)),
        (static_of(span_name=None), moment_of()),
    ],
)
def test_records_without_a_span(static, moment):
    assert span_in((static, moment)) is None
    assert log_in((static, moment)) is not None


def test_a_record_without_an_event():
    assert log_in((static_of(type=None), moment_of())) is None
    assert span_in((static_of(type=None), moment_of())) is not None


def test_a_cut_record_is_marked():
    moment = moment_of(flags=5 | CUT, attributes=None)
    span = span_in((static_of(outcome="failed"), moment))
    assert values(span.attributes)["sidelight.truncated"] is True
    assert span.status.code == StatusCode.ERROR.value
    assert values(log_in((static_of(), moment)).attributes)["sidelight.truncated"] is True


def test_a_span_that_is_too_large_keeps_its_error(kept):
    @emits(failure="failed", big=arg.big)
    def fail(big):
        for index in range(20):
            trace.get_current_span().set_attribute(f"big {index}", big * 1000)
        raise ValueError("told all the same")

    EMITTER.strict = False
    with pytest.raises(ValueError, match="told"):
        fail("x" * 1000)
    span = span_in(kept.records[0])
    assert span.status.code == StatusCode.ERROR.value
    assert span.status.message == "ValueError: told all the same"
    assert values(span.attributes)["sidelight.truncated"] is True
    EMITTER.losses.clear()


@pytest.mark.parametrize(
    ("point", "kind", "name"),
    [
        ("voice_notes.artifacts:create", "artifact_received", "voice_notes.artifact.received"),
        ("__main__:create", "artifact_received", "artifact.received"),
        ("sidelight:emit", "direct", "direct"),
        ("app:work", "Already.dotted", "app.Already.dotted"),
    ],
)
def test_event_names(point, kind, name):
    assert event_name(static_of(point=point, type=kind)) == name


@pytest.mark.parametrize(
    ("given", "exported"),
    [(5, "5"), (2.5, "2.5"), (["a", 1], '["a",1]'), ({"k": None}, '{"k":null}')],
)
def test_ids_are_text_as_in_the_store(given, exported):
    record = static_of(), moment_of(artifact_id=given)
    for item in (span_in(record), log_in(record)):
        assert values(item.attributes)["sidelight.artifact.id"] == exported


def test_a_resource():
    given = {"service.name": "s", "telemetry.sdk.name": "other", "process.pid": 7}
    message = ResourceSpans.FromString(encode_resource({"resource": given})).resource
    found = values(message.attributes)
    assert found.items() >= given.items()
    assert found["telemetry.distro.name"] == "sidelight"
    (theirs,) = encode_spans([ReadableSpan("", CONTEXT, resource=Resource(found))]).resource_spans
    assert message == theirs.resource
    least = ResourceSpans.FromString(encode_resource({})).resource
    assert values(least.attributes)["telemetry.sdk.language"] == "python"


def test_a_span_with_hostile_values_can_be_encoded(kept):
    strange = (
        object(),
        "\ud800",
        float("nan"),
        2**80,
        [None, [[[[["deep"]]]]]],
        {1: {2: {3: {4: {5: 6}}}}},
        {"\ud800": "\ud800"},
        {"a set"},
        Hostile(),
        None,
        bytearray(b"x"),
    )

    def deed(span):
        for index, value in enumerate(strange):
            span.set_attribute(f"{index}", value)
            span.add_event("event", {"value": value})
            span.add_event(value, {"value": 1}, timestamp=value)
            span.add_link(LINKED, {"value": value})
            span.set_attribute(value, 1)
            span.set_attributes(value)
            span.add_event("odd", value)
            span.add_link(value, value)
            span.set_status(value, value)
            span.record_exception(value, value, value)
        span.update_name(Hostile())
        span.update_name("\ud800")
        span.record_exception(Hostile())

    under_light(deed)
    span = span_in(kept.records[0])
    assert span.name == "\\ud800"
    assert len(span.attributes) > 8


class Hostile(Exception):
    def __repr__(self):
        raise RuntimeError

    __str__ = __len__ = __iter__ = __bool__ = __eq__ = __repr__
    __hash__ = None
