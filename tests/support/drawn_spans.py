"""Strategies for Hypothesis: anything that a program can do to a span by OpenTelemetry's API."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)


def _encoded(value: Any) -> bool:
    context = SpanContext(1, 2, is_remote=False)
    span = ReadableSpan("", context, attributes={"a": value}, resource=Resource({}))
    return bool(encode_spans([span]).resource_spans[0].scope_spans[0].spans[0].attributes)


# What not every supported version of the SDK does; sidelight does all of it under each.
COUNTS_EMPTY_KEYS = BoundedAttributes(attributes={"": 1}).dropped == 1
TAKES_NESTED = bool(BoundedAttributes(attributes={"deep": {}}))
TAKES_BYTES = isinstance(BoundedAttributes(attributes={"b": b"a"}).get("b"), bytes)
ENCODES_NONE = _encoded([None])

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
values = st.recursive(
    (st.none() if ENCODES_NONE else st.booleans())
    | st.booleans()
    | int64
    | st.floats()
    | texts
    | st.binary(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
attributes = st.dictionaries(names, values, max_size=6)
times = st.integers(0, 1 << 63)
states = st.lists(
    st.tuples(
        st.from_regex(r"[a-z][a-z0-9_*/-]{0,8}(@[a-z]{1,4})?", fullmatch=True),
        st.from_regex(r"[!-+\--<>-~ ]{0,6}[!-+\--<>-~]", fullmatch=True),
    ),
    max_size=4,
    unique_by=lambda pair: pair[0],
).map(TraceState)
contexts = st.builds(
    SpanContext,
    trace_id=st.integers(1, (1 << 128) - 1),
    span_id=st.integers(1, (1 << 64) - 1),
    is_remote=st.booleans(),
    trace_flags=st.integers(0, 3).map(TraceFlags),
    trace_state=states,
)
few = st.none() | st.integers(0, 3)
limits = st.builds(
    SpanLimits,
    max_span_attributes=few,
    max_events=few,
    max_links=few,
    max_event_attributes=few,
    max_link_attributes=few,
    max_attribute_length=few,
)
statuses = st.one_of(
    st.just(Status(StatusCode.UNSET)),
    st.just(Status(StatusCode.OK)),
    st.builds(Status, st.just(StatusCode.ERROR), st.none() | texts),
)


@st.composite
def lives(draw):
    """The calls on one span, from its start to its end."""
    begin = {
        "name": draw(texts),
        "kind": draw(st.sampled_from(SpanKind)),
        "attributes": draw(attributes),
        "links": [
            Link(c, a) for c, a in draw(st.lists(st.tuples(contexts, attributes), max_size=3))
        ],
        "start_time": draw(times),
    }
    deeds = draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("set_attributes"), attributes),
                st.tuples(st.just("add_event"), texts, attributes, st.integers(0, 1 << 63)),
                st.tuples(st.just("add_link"), contexts, attributes),
                st.tuples(st.just("set_status"), statuses),
                st.tuples(st.just("update_name"), texts),
            ),
            max_size=6,
        )
    )
    return draw(st.none() | contexts), begin, deeds, draw(times)


def live(tracer, life):
    parent, begin, deeds, end = life
    around = None if parent is None else trace.set_span_in_context(NonRecordingSpan(parent))
    span = tracer.start_span(context=around, **begin)
    for name, *arguments in deeds:
        getattr(span, name)(*arguments)
    span.end(end)
