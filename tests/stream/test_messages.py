"""A message is a CloudEvent that anybody reads, and holds all that the event's row needs."""

import datetime
import json
import math

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from tests.support.stored import NOON, SECOND, TRACE, ledger, record

from sidelight import catalogue
from sidelight.exceptions import MessageError
from sidelight.record import event_id, ledger_part
from sidelight.record.format import CALL, CUT, RANDOM, REMOTE_PARENT, SAMPLED, SPAN
from sidelight.store import call_of, ends_call
from sidelight.store.rows import drafts_of, rows_of
from sidelight.stream import MessageWriter, Told, read_message

MODES = {"binary": False, "structured": True}
modes = pytest.mark.parametrize("structured", MODES.values(), ids=MODES)


WRITER = {
    "instance": "0123456789abcdef",
    "pid": 7,
    "resource": {"service.name": "voice-notes", "host.name": "host-1"},
}


def written(record, *, structured=False, writer=WRITER):
    return MessageWriter(writer, structured=structured).write(record)


def record_of(value, headers):
    return read_message(value, headers).record


def row(record):
    drafts, _ = drafts_of([record])
    return next(rows_of(drafts, {}, 0))[0]


EVERYTHING = record(
    "claims_extracted",
    NOON + 123_456_789,
    artifact="note-7",
    organization="org-1",
    duration=2_500_000,
    mode="awaited",
    trace=TRACE,
    span=0xAB,
    flags=SPAN | SAMPLED,
    attributes={"claims": 3, "words": ["ä", None], "nested": {"x": 1.5}},
    bits=(1 << 64) - 1,
)
RECORDS = {
    "everything": EVERYTHING,
    "nothing but a type": record(artifact=None),
    "an empty artifact and organization": record(artifact="", organization=""),
    "ids that are no text": record(artifact=7, organization=["a", 1]),
    "an id too long for an index, and one with NUL": record(
        artifact="é" * 600, organization="a\0b"
    ),
    "a failure": record(
        outcome="failed",
        error=("ValueError", "no \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")),
    ),
    "cut": record(flags=CUT),
    "the start of a call": record(outcome="started", trace=TRACE, span=1, flags=CALL | SAMPLED),
    "a trace without a span": record(trace=TRACE),
    "a random and remote trace": record(trace=TRACE, span=1, flags=RANDOM | REMOTE_PARENT),
    "before 1970": record(at=-1),
    "at a full second": record(at=NOON),
    "values with no JSON form": record(attributes={"a": math.inf, "b": b"bytes", "c": 2**64 - 1}),
    "a point with spaces": record(point="app:Class.<locals>.<lambda> ü"),
}


@modes
@pytest.mark.parametrize("name", RECORDS)
def test_the_row_of_what_is_read_is_the_row_of_what_was_written(name, structured):
    message = written(RECORDS[name], structured=structured)
    again = record_of(message.value, message.headers)
    assert row(again) == row(RECORDS[name])
    assert written(again, structured=structured) == message  # replayed


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=True)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)
texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)


@given(
    attributes=st.dictionaries(st.text(st.characters(codec="utf-8")), plain_values, max_size=4),
    artifact=texts,
    organization=texts,
    at=st.integers(0, 2**62),
    duration=st.none() | st.integers(0, 2**40),
    bits=st.integers(0, 2**64 - 1),
    structured=st.booleans(),
)
def test_no_value_is_changed_on_the_way(structured, **fields):
    of = record(**fields)
    message = written(of, structured=structured)
    assert row(record_of(message.value, message.headers)) == row(of)
    assert message.value
    assert message.key != b""


@pytest.mark.usefixtures("empty_catalogue")
def test_binary_mode_has_the_attributes_as_headers():
    message = written(EVERYTHING)
    key = row(EVERYTHING)[0]
    parent = f"00-{TRACE.hex()}-00000000000000ab-01".encode()
    assert message.key == b"note-7"
    assert json.loads(message.value) == {"claims": 3, "words": ["ä", None], "nested": {"x": 1.5}}
    assert dict(message.headers) == {
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_id": key.encode(),
        "ce_source": b"voice-notes",
        "ce_instance": b"0123456789abcdef",
        "ce_host": b"host-1",
        "ce_type": b"claims_extracted",
        "ce_subject": b"note-7",
        "ce_time": b"2026-07-25T12:00:00.123456789Z",
        "ce_organization": b"org-1",
        "ce_point": b"shop:make",
        "ce_mode": b"awaited",
        "ce_outcome": b"succeeded",
        "ce_duration": b"2500000",
        "ce_traceparent": parent,
        "traceparent": parent,
    }


def test_structured_mode_has_them_in_the_value():
    message = written(EVERYTHING, structured=True)
    assert dict(message.headers)["content-type"] == b"application/cloudevents+json; charset=UTF-8"
    assert not any(name.startswith("ce_") for name, _ in message.headers)
    event = json.loads(message.value)
    assert event["data"]["claims"] == 3
    assert (event["id"], event["datacontenttype"]) == (row(EVERYTHING)[0], "application/json")


@modes
def test_the_sdk_of_cloudevents_reads_it(structured):
    message = written(EVERYTHING, structured=structured)
    event = from_kafka_event(KafkaMessage(dict(message.headers), message.key, message.value))
    at = datetime.datetime(2026, 7, 25, 12, 0, 0, 123456, tzinfo=datetime.UTC)
    assert event.get_id() == row(EVERYTHING)[0]
    assert event.get_type() == "claims_extracted"
    assert event.get_subject() == "note-7"
    assert event.get_time() == at
    assert event.get_source() == "voice-notes"
    assert event.get_datacontenttype() == "application/json"
    assert event.get_data()["claims"] == 3
    assert event.get_extension("organization") == "org-1"


def test_an_event_without_artifact_has_no_key_and_one_without_attributes_a_value():
    message = written(record(artifact=None))
    assert (message.key, message.value) == (None, b"{}")
    assert written(record(artifact="")).key is None


def test_the_source_is_a_reference():
    writer = {"resource": {"service.name": "voice notes ä#1"}}
    source = dict(written(EVERYTHING, writer=writer).headers)["ce_source"]
    assert source == b"voice%20notes%20%C3%A4%231"


def test_a_declared_type_names_its_schema_by_version(monkeypatch):
    monkeypatch.setattr(catalogue, "_declared", {})
    writer = MessageWriter(WRITER)

    def schema():
        writer.look_at_catalogue()
        return dict(writer.write(EVERYTHING).headers).get("ce_dataschema")

    assert schema() is None

    @catalogue.event("claims_extracted")
    class Claims(BaseModel):
        claims: int

    first = schema()
    assert first.startswith(b"urn:sidelight:claims_extracted:")
    catalogue.clear()

    @catalogue.event("claims_extracted")
    class MoreClaims(BaseModel):
        claims: int
        words: list[str | None]

    assert schema() not in {None, first}


def changed(**headers):
    """A good message with some headers replaced; None removes one."""
    message = written(EVERYTHING)
    found = {
        **dict(message.headers),
        **{k.replace("content_", "content-"): v for k, v in headers.items()},
    }
    return message.value, [(k, v) for k, v in found.items() if v is not None]


good, good_headers = changed()
YEAR_2400 = 13_569_465_600 * SECOND
BROKEN = {
    "no headers": (good, []),
    "an empty value": (b"", good_headers),
    "no value": (None, good_headers),
    "a value that is no JSON": (b"{", good_headers),
    "a value that is no object": (b"[1]", good_headers),
    "a value nested too deeply": (b"[" * 100_000, good_headers),
    "another version": changed(ce_specversion=b"0.3"),
    "no id": changed(ce_id=None),
    "an id that is no UUID": changed(ce_id=b"1"),
    "another event's id": changed(ce_id=b"0198410e-1f00-7000-8000-000000000000"),
    "a time with another zone": changed(ce_time=b"2026-07-25T12:00:00.123456789+02:00"),
    "an impossible time": changed(ce_time=b"2026-02-31T12:00:00Z"),
    "no time": changed(ce_time=None),
    "somebody else's event": changed(ce_point=None, ce_mode=None, ce_outcome=None),
    "an unknown outcome": changed(ce_outcome=b"perhaps"),
    "a time that no database holds": changed(
        ce_time=b"2400-01-01T00:00:00Z", ce_id=event_id(YEAR_2400, 1).encode(), ce_duration=None
    ),
    "a negative duration": changed(ce_duration=b"-1"),
    "a duration that no database holds": changed(ce_duration=b"1" + b"0" * 25),
    "a process at a time that no database holds": (
        b'{"pid": 1, "resource": {}, "at": %d}' % (1 << 63),
        [
            ("ce_specversion", b"1.0"),
            ("ce_type", b"sidelight.process"),
            ("ce_id", event_id(1 << 63, 1).encode()),
        ],
    ),
    "a broken duration": changed(ce_duration=b"long"),
    "a broken traceparent": changed(ce_traceparent=b"00-1"),
    "a header that is no text": changed(ce_subject=b"\xff"),
    "structured, but binary": changed(content_type=b"application/cloudevents+json"),
    "a header without a value": (good, [*good_headers, ("ce_type", None)]),
    "a call that is none": (
        b'{"pid": 1, "resource": {}, "at": 1, "ended_calls": ["x"]}',
        [("ce_specversion", b"1.0"), ("ce_type", b"sidelight.process"), ("ce_id", b"0" * 36)],
    ),
    "structured, and no text": (
        b'{"specversion": 1}',
        [("content-type", b"application/cloudevents+json")],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_event_of_sidelight_says_so(name):
    with pytest.raises(MessageError, match=r"holds no event of sidelight: \S"):
        read_message(*BROKEN[name])


LEDGER = ledger(
    {"spool full": 3}, {"app:f": {"count": 1, "over": 0, "max": 9, "buckets": [[1, 1]]}}
)
SIGN = record(
    None, point="sidelight:ledger", outcome="ledger", artifact=None, attributes={"began": 5}
)
ENDS = [record(None, trace=TRACE, span=n, flags=CALL) for n in (1, 2)]


@modes
def test_what_is_told_of_a_process_is_read_as_it_was_written(structured):
    writer = MessageWriter(WRITER, structured=structured)

    def read(message):
        assert message.key == b"0123456789abcdef"
        told = read_message(message.value, message.headers)
        assert isinstance(told, Told)
        assert told.writer == WRITER
        return told

    (again,) = read(writer.write(LEDGER)).records
    assert ledger_part(again[1]) == ledger_part(LEDGER[1])
    assert again[1].time == LEDGER[1].time
    told = read(writer.write(SIGN))
    assert (ledger_part(told.sign[1]), told.records) == (ledger_part(SIGN[1]), [])
    told = read(writer.write_ends(ENDS))
    assert [call_of(moment) for _, moment in told.records] == [call_of(m) for _, m in ENDS]
    assert all(ends_call(*each) for each in told.records)
    told = read(writer.note(NOON, state="died"))
    assert (told.at, told.state, told.is_end) == (NOON, "died", True)


def test_a_time_without_fraction_is_read():
    of = record(at=NOON + 5 * SECOND)
    message = written(of)
    headers = [(n, b"2026-07-25T12:00:05Z" if n == "ce_time" else v) for n, v in message.headers]
    assert row(record_of(message.value, headers)) == row(of)
