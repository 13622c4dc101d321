"""Events go to a topic of Kafka: one variable configures it, and receipts tell it."""

import time

import pytest
from tests.support import kafka
from tests.support.consuming import events_in

import sidelight
from sidelight.exceptions import ConfigurationError
from sidelight.runtime import RUNTIME
from sidelight.store.rows import drafts_of, rows_of


@pytest.fixture
def topic():
    return kafka.broker().new_topic(partitions=3)


def arrived(topic):
    """The rows of a topic, by event id."""
    found = {}
    for record in events_in(kafka.broker().messages(topic)):
        drafts, _ = drafts_of([record])
        ((row,),) = rows_of(drafts, {}, 0)
        assert row[0] not in found
        found[row[0]] = row
    return found


def test_a_stream_alone_acknowledges(topic, tmp_path):
    sidelight.configure(stream=topic, spool=tmp_path, deadline=1.0)
    receipts = [sidelight.emit("made", artifact_id=f"a{n}", attributes={"n": n}) for n in range(9)]
    assert sidelight.flush(20)
    awaited = sidelight.emit("made", artifact_id="last").wait()
    assert awaited.state in {"streamed", "spooled"}  # on a busy machine it does not wait
    assert sidelight.flush(20)
    assert awaited.state == "streamed"
    assert {each.state for each in receipts} == {"streamed"}
    rows = arrived(topic)
    assert {*rows} == {each.event_id for each in (*receipts, awaited)}
    assert {row[2] for row in rows.values()} == {*(f"a{n}" for n in range(9)), "last"}


def test_with_a_store_the_store_acknowledges_and_both_get_the_same_rows(topic, tmp_path):
    url = f"sqlite:///{tmp_path / 'events.db'}"
    sidelight.configure(url, stream=topic, deadline=1.0)
    receipts = [sidelight.emit("made", artifact_id=f"a{n}", attributes={"n": n}) for n in range(9)]
    until = time.monotonic() + 20
    while not sidelight.flush(5) or RUNTIME.health()["stream"].delivered < 9:
        assert time.monotonic() < until
    assert {each.state for each in receipts} == {"stored"}
    with sidelight.Store(url) as store:
        stored = {(e.event_id, e.artifact_id, e.occurred_ns, e.point) for e in store.events()}
    assert {(row[0], row[2], row[4], row[6]) for row in arrived(topic).values()} == stored


def test_the_environment_names_the_stream(topic, tmp_path, monkeypatch):
    monkeypatch.setenv("SIDELIGHT_STREAM", topic)
    monkeypatch.setenv("SIDELIGHT_SPOOL", str(tmp_path))
    sidelight.configure()
    receipt = sidelight.emit("made")
    assert sidelight.flush(20)
    assert receipt.state == "streamed"
    with pytest.raises(ConfigurationError, match=r"events go to kafka://.* only"):
        sidelight.Store()
