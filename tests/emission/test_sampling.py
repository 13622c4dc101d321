"""Sampling and limits agree with what the SDK makes of the same variables."""

import logging
import random

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    ParentBasedTraceIdRatio,
    TraceIdRatioBased,
)

from sidelight.emission.sampling import ratio, sampling
from sidelight.record.limits import DEFAULT_LIMITS, Limits, limits_from, limits_of

SAMPLERS = {
    "always_on": ALWAYS_ON,
    "always_off": ALWAYS_OFF,
    "parentbased_always_on": DEFAULT_ON,
    "parentbased_always_off": DEFAULT_OFF,
    "traceidratio": TraceIdRatioBased(0.3),
    "parentbased_traceidratio": ParentBasedTraceIdRatio(0.3),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_sdk_decides_the_same(name):
    rules = sampling({"OTEL_TRACES_SAMPLER": f" {name.upper()} ", "OTEL_TRACES_SAMPLER_ARG": "0.3"})
    assert rules.parent_based == name.startswith("parentbased")
    assert not rules.disabled
    root = trace.set_span_in_context(trace.INVALID_SPAN)
    for _ in range(500):
        trace_id = random.getrandbits(128)
        theirs = SAMPLERS[name].should_sample(root, trace_id, "").decision.is_sampled()
        assert rules.root(trace_id.to_bytes(16, "big")) == theirs


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (1.0, 1000), (0.25, 250)])
def test_a_ratio(share, kept):
    keep = ratio(share)
    evenly = (((i << 64) // 1000).to_bytes(16, "big") for i in range(1000))
    assert sum(map(keep, evenly)) == kept


def test_the_edges_of_a_ratio():
    keep = ratio(0.5)
    assert keep((2**63 - 1).to_bytes(16, "big"))
    assert not keep((2**63).to_bytes(16, "big"))
    assert keep((5 << 64).to_bytes(16, "big"))  # the high bits do not count


def test_nothing_said_keeps_all():
    rules = sampling({})
    assert rules.parent_based
    assert rules.root(bytes(16))


@pytest.mark.parametrize(
    ("name", "argument"),
    [("xray", ""), ("traceidratio", "much"), ("traceidratio", "1.5"), ("traceidratio", "nan")],
)
def test_what_is_not_understood_keeps_all_and_is_logged(caplog, name, argument):
    with caplog.at_level(logging.WARNING, "sidelight"):
        rules = sampling({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument})
    assert rules.root(b"\xff" * 16)
    (record,) = caplog.records
    assert (argument or name) in record.getMessage()


@pytest.mark.parametrize("value", ["true", " TRUE "])
def test_a_disabled_sdk(value):
    rules = sampling({"OTEL_SDK_DISABLED": value, "OTEL_TRACES_SAMPLER": "always_on"})
    assert rules.disabled
    assert not rules.root(bytes(16))


@pytest.mark.parametrize("value", ["", "false", "1", "yes"])
def test_an_sdk_that_is_not_disabled(value):
    assert not sampling({"OTEL_SDK_DISABLED": value}).disabled


LIMITS = [
    {},
    {"OTEL_ATTRIBUTE_COUNT_LIMIT": "7"},
    {"OTEL_ATTRIBUTE_COUNT_LIMIT": ""},
    {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": " 9 ", "OTEL_ATTRIBUTE_COUNT_LIMIT": "7"},
    {"OTEL_SPAN_EVENT_COUNT_LIMIT": "0", "OTEL_SPAN_LINK_COUNT_LIMIT": ""},
    {"OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "1", "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "2"},
    {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "11"},
    {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "11", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "12"},
]


@pytest.mark.parametrize("environment", LIMITS, ids=str)
def test_limits_are_those_of_the_sdk(monkeypatch, environment):
    for name in {name for each in LIMITS for name in each}:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ours, theirs = limits_from(environment), SpanLimits()
    assert ours.attributes == theirs.max_span_attributes
    assert ours.events == theirs.max_events
    assert ours.links == theirs.max_links
    assert ours.event_attributes == theirs.max_event_attributes
    assert ours.link_attributes == theirs.max_link_attributes
    assert ours.length == theirs.max_attribute_length
    assert ours.span_length == theirs.max_span_attribute_length


def test_limits_of_log_records():
    given = limits_from(
        {
            "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "3",
            "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4",
        }
    )
    assert (given.log_attributes, given.log_length) == (3, 4)
    assert limits_from({"OTEL_ATTRIBUTE_COUNT_LIMIT": "5"}).log_attributes == 5


@pytest.mark.parametrize("value", ["-1", "many", "1.5", "²"])
def test_a_limit_that_is_no_number_is_logged(caplog, value):
    with caplog.at_level(logging.WARNING, "sidelight"):
        assert limits_from({"OTEL_SPAN_EVENT_COUNT_LIMIT": value}) == DEFAULT_LIMITS
    assert "OTEL_SPAN_EVENT_COUNT_LIMIT" in caplog.text


def test_limits_travel_in_a_segment():
    few = Limits(attributes=3, length=None)
    assert limits_of({"limits": list(few)}) == few
    assert limits_of({}) == DEFAULT_LIMITS
    assert limits_of({"limits": 5}) == DEFAULT_LIMITS
    assert limits_of({"limits": [1] * 30}) == DEFAULT_LIMITS
