"""The bytes of any record, parsed, equal what the installed SDK encodes of the same call."""

from __future__ import annotations

import os
from unittest import mock

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from tests.support.drawn_spans import (
    TAKES_BYTES,
    TAKES_NESTED,
    contexts,
    few,
    int64,
    names,
    statuses,
    texts,
)
from tests.support.otlp_bytes import DESCRIBED, RESOURCE, by_the_sdk, logs_request, spans_request
from tests.support.telemetry import keeping

from sidelight import emits
from sidelight.emission.light_span import LightSpan
from sidelight.record.format import CUT, RANDOM, SAMPLED, SPAN, Moment, Static, event_id
from sidelight.record.limits import Limits
from sidelight.version import __version__

OWN_KEYS = (
    "code.function.name",
    "sidelight.mode",
    "sidelight.outcome",
    "sidelight.duration",
    "sidelight.artifact.id",
    "sidelight.organization.id",
    "sidelight.truncated",
    "sidelight.event.type",
    "log.record.uid",
    "error.type",
    "exception.message",
)

times = st.integers(0, (1 << 63) - 1)
long_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=60, max_size=140)
small = st.integers(0, 300)
scalars = texts | long_texts | int64 | small | st.floats() | st.booleans()
scalars |= st.binary(max_size=12) if TAKES_BYTES else st.nothing()
lists = st.one_of(
    *(st.lists(each, max_size=3) for each in (texts, int64, st.floats(), st.booleans()))
)
nested = st.dictionaries(names, scalars | lists, max_size=3) | st.lists(scalars, max_size=3)
values = scalars | lists | nested if TAKES_NESTED else scalars | lists
attributes = st.dictionaries(names | st.sampled_from(OWN_KEYS), values, max_size=6)


# -- spans ---------------------------------------------------------------------------------------

deeds = st.lists(
    st.one_of(
        st.tuples(st.just("set_attributes"), attributes),
        st.tuples(st.just("add_event"), texts, attributes, times),
        st.tuples(st.just("add_link"), contexts, attributes),
        st.tuples(st.just("set_status"), statuses),
        st.tuples(st.just("update_name"), names),
    ),
    max_size=6,
)
span_limits = st.fixed_dictionaries(
    dict.fromkeys(
        ("attributes", "events", "links", "event_attributes", "link_attributes", "length"), few
    )
    | {"span_length": few}
)


@emits("work_done")
def work(deeds):
    act(trace.get_current_span(), deeds)


def act(span, deeds):
    for name, *arguments in deeds:
        getattr(span, name)(*arguments)


def sdk_limits(limits):
    most = {name: SpanLimits.UNSET if n is None else n for name, n in limits._asdict().items()}
    return SpanLimits(
        max_span_attributes=most["attributes"],
        max_events=most["events"],
        max_links=most["links"],
        max_event_attributes=most["event_attributes"],
        max_link_attributes=most["link_attributes"],
        max_attribute_length=most["length"],
        max_span_attribute_length=most["span_length"],
    )


@settings(deadline=None, max_examples=50)
@given(deeds, st.none() | contexts, span_limits)
def test_any_span(deeds, parent, most):
    """Of a decorated function, with anything that it does to its span."""
    limits = Limits(**most)
    replaced = any("code.function.name" in given for _, given, *_ in deeds if type(given) is dict)
    assume(limits.attributes is None or not replaced)  # else the SDK has dropped it once more
    around = trace.INVALID_SPAN
    if parent is not None:
        sampled = TraceFlags(parent.trace_flags | 1)
        around = NonRecordingSpan(
            SpanContext(
                parent.trace_id, parent.span_id, parent.is_remote, sampled, parent.trace_state
            )
        )
    with (
        keeping() as kept,
        mock.patch.object(LightSpan, "limits", limits),
        trace.use_span(around),
    ):
        work(deeds)
    (record,) = kept.records
    ours = spans_request(kept.records, DESCRIBED, limits)
    assert ours == by_the_sdk(lambda span: act(span, deeds), record, around, sdk_limits(limits))


# -- log records ---------------------------------------------------------------------------------

ids = st.none() | names | int64 | st.floats(allow_nan=False) | st.lists(int64, max_size=2)
errors = st.tuples(names, texts, st.lists(st.tuples(names, small, names), max_size=2))
statics = st.builds(
    Static,
    st.sampled_from(["artifact_received", "Already.dotted"]),
    st.sampled_from(["voice_notes.artifacts:create", "__main__:work", "sidelight:emit"]),
    st.sampled_from(["scheduled", "awaited"]),
    st.sampled_from(["started", "succeeded", "failed", "emitted"]),
    st.none() | names,
)
moments = st.builds(
    Moment,
    time=st.integers(0, 1 << 62),
    random=st.integers(0, (1 << 64) - 1),
    artifact_id=ids,
    organization_id=ids,
    duration=st.none() | st.integers(0, 1 << 50),
    trace=st.none() | st.binary(min_size=16, max_size=16).filter(any),
    span_id=st.integers(1, (1 << 64) - 1),
    parent_id=st.just(0),
    flags=st.sampled_from([0, SPAN, SAMPLED, SAMPLED | RANDOM, SAMPLED | CUT]),
    attributes=st.none() | st.dictionaries(names | st.sampled_from(OWN_KEYS), st.none() | values),
    details=st.none() | st.fixed_dictionaries({"error": errors.map(list)}),
)


def log_by_the_sdk(static, moment, observed, limits):
    """What an application would log by OpenTelemetry's API to tell the same."""
    occurred = moment.time + (moment.duration or 0)
    context = trace.INVALID_SPAN
    if moment.trace:
        w3c = (1 if moment.flags & SAMPLED else 0) | (2 if moment.flags & RANDOM else 0)
        trace_id = int.from_bytes(moment.trace, "big")
        context = NonRecordingSpan(SpanContext(trace_id, moment.span_id, False, TraceFlags(w3c)))
    error = (moment.details or {}).get("error")
    severity = SeverityNumber.ERROR if error else SeverityNumber.INFO
    package = static.point.partition(":")[0].partition(".")[0]
    name = static.type.replace("_", ".")
    record = LogRecord(
        timestamp=occurred,
        observed_timestamp=observed,
        context=trace.set_span_in_context(context),
        severity_number=severity,
        severity_text=severity.name,
        body=static.type,
        attributes=told(static, moment, error, event_id(occurred, moment.random)),
        event_name=name if package in {"__main__", "sidelight"} else f"{package}.{name}",
    )
    seen = []
    with mock.patch.dict(os.environ, environment_of(limits)):
        provider = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
        provider.add_log_record_processor(mock.Mock(on_emit=seen.append))
        provider.get_logger("sidelight", __version__).emit(record)
    return encode_logs(seen)


def told(static, moment, error, uid):
    """The attributes in their order; a value that was not captured is left out."""
    pairs = dict(moment.attributes or {})
    pairs["code.function.name"] = static.point.replace(":", ".")
    pairs["sidelight.mode"], pairs["sidelight.outcome"] = static.mode, static.outcome
    if moment.duration is not None:
        pairs["sidelight.duration"] = moment.duration
    if error:
        kind, why, frames = error
        lines = [
            f'  File "{file}", line {line}, in {function}\n' for file, line, function in frames
        ]
        pairs["exception.type"], pairs["exception.message"] = kind, why
        pairs["exception.stacktrace"] = (
            f"Traceback (most recent call last):\n{''.join(lines)}{kind}: {why}\n"
        )
        pairs["error.type"] = kind
    for name in ("artifact", "organization"):
        if (given := getattr(moment, f"{name}_id")) is not None:
            text = str(given).replace(" ", "") if isinstance(given, list) else str(given)
            pairs[f"sidelight.{name}.id"] = text
    if moment.flags & CUT:
        pairs["sidelight.truncated"] = True
    pairs["sidelight.event.type"], pairs["log.record.uid"] = static.type, uid
    return {key: value for key, value in pairs.items() if value is not None}


def environment_of(limits):
    given = {
        "OTEL_ATTRIBUTE_COUNT_LIMIT": limits.log_attributes,
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": limits.log_length,
    }
    return {name: str(number) for name, number in given.items() if number is not None}


@pytest.mark.filterwarnings("ignore:Log record attributes were dropped")
@settings(deadline=None, max_examples=50)
@given(statics, moments, times, few, few)
def test_any_log_record(static, moment, observed, most, length):
    limits = Limits(log_attributes=128 if most is None else most, log_length=length)
    ours = logs_request([(static, moment)], DESCRIBED, limits, observed)
    assert ours == log_by_the_sdk(static, moment, observed, limits)
