"""`sidelight.testing.capture` records events and spans, and restores the emitter."""

import contextlib
import datetime
import threading
import uuid

import pytest
from sqlalchemy import create_engine

import sidelight
from sidelight import arg, emits, result
from sidelight.emission.emitter import EMITTER
from sidelight.exceptions import InstrumentationError
from sidelight.testing import capture


@emits("sold", failure="refused", artifact_id=arg.item, organization_id="o1", price=result)
def sell(item, price=3):
    if price < 0:
        raise ValueError("negative")
    return price


def test_events_as_they_read():
    with capture() as recorded:
        sell("a1")
    event = recorded.one("sold")
    assert (event.artifact_id, event.organization_id) == ("a1", "o1")
    assert event.attributes == {"price": 3}
    assert (event.mode, event.outcome) == ("scheduled", "succeeded")
    assert event.point == f"{__name__}:sell"
    assert event.duration_ns > 0
    assert event.occurred_at.tzinfo is datetime.UTC
    assert len(event.event_id) == 36
    assert event.error_type is None
    told = repr(event)
    assert told.startswith("Event(")
    assert "type='sold'" in told
    assert "error" not in told


def test_failures_and_spans():
    with capture() as recorded, pytest.raises(ValueError, match="negative"):
        sell("a1", -1)
    event = recorded.one("refused")
    assert (event.error_type, event.error_message) == ("ValueError", "negative")
    (span,) = recorded.spans
    assert (span.name, span.outcome, span.span_id) == ("sell", "failed", event.span_id)
    assert span.parent_id is None


def test_several():
    with capture() as recorded:
        sell("a1")
        sell("a2", 5)
        sidelight.emit("closed", artifact_id="a1")
    assert recorded.types == ["sold", "sold", "closed"]
    assert [event.artifact_id for event in recorded] == ["a1", "a2", "a1"]
    assert len(recorded) == 3
    assert repr(recorded) == "<sold, sold, closed>"
    assert recorded.one("sold", artifact_id="a2").attributes == {"price": 5}
    assert recorded.one(artifact_id="a2").type == "sold"
    recorded.clear()
    assert (recorded.types, repr(recorded)) == ([], "<nothing>")


def test_what_is_not_there_is_told():
    with capture() as recorded:
        sell("a1")
        sell("a2")
    with pytest.raises(AssertionError, match=r"2 events match 'sold'; emitted:\n  Event\(.*a1"):
        recorded.one("sold")
    with pytest.raises(AssertionError, match="0 events match 'sold', artifact_id='a3'"):
        recorded.one("sold", artifact_id="a3")
    with capture() as empty, pytest.raises(AssertionError, match="emitted:\n  nothing"):
        empty.one("sold")


@pytest.mark.parametrize("ask", ["of", "one", "none"])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("item", r"no field item; compare an attribute of the event: \.attributes\['item'\]"),
        ("artifactid", "no field artifactid; did you mean artifact_id"),
    ],
)
def test_a_field_that_no_event_has_is_refused(ask, name, told):
    """It is refused where nothing was emitted too, because `none` would hold there."""
    with capture() as recorded:
        for sold in (False, True):
            if sold:
                sell("a1")
            with pytest.raises(TypeError, match=told):
                getattr(recorded, ask)("sold", **{name: 1})


def test_nothing_is_left_behind():
    before = EMITTER.spool, EMITTER.strict, dict(EMITTER.losses), dict(EMITTER.problems)
    with pytest.raises(KeyError), capture(strict=False) as recorded:
        emits("x", a=lambda: 1 / 0)(lambda: None)()
        raise KeyError
    after = EMITTER.spool, EMITTER.strict, dict(EMITTER.losses), dict(EMITTER.problems)
    assert before == after
    assert recorded.losses == {"field a not captured": 1}


def test_strict_is_the_default():
    with capture(), pytest.raises(InstrumentationError):
        emits("x", a=lambda: 1 / 0)(lambda: None)()


def test_one_inside_another():
    with capture() as outer:
        with capture() as inner:
            sell("a1")
        sell("a2")
    assert [len(inner), len(outer)] == [1, 1]


def test_threads():
    with capture() as recorded:
        threads = [threading.Thread(target=sell, args=(f"a{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {event.artifact_id for event in recorded} == {f"a{n}" for n in range(8)}


def test_deterministic():
    def run():
        with capture(deterministic=True) as recorded:
            sell("a1")
            sell("a2")
        return recorded

    first, second = run(), run()
    assert first.events == second.events
    assert first.spans == second.spans
    assert first.events[1].occurred_at == datetime.datetime(
        2026, 1, 1, 0, 0, 1, tzinfo=datetime.UTC
    )
    assert first.events[0].event_id != first.events[1].event_id
    with capture() as free:
        sell("a1")
    assert free.events[0].event_id != first.events[0].event_id


def test_an_awaited_emission_does_not_wait():
    with capture() as recorded:
        receipt = sidelight.emit("x", mode="awaited")
        assert receipt.state == "stored"
        assert str(receipt) == recorded.one().event_id


def test_what_joins_a_transaction_is_caught_at_the_commit():
    """The tests of an application need no outbox table."""
    engine = create_engine("sqlite://")

    @emits("ordered", transaction=arg.connection)
    def order(connection):
        connection.exec_driver_sql("SELECT 1")

    with capture() as recorded, engine.connect() as connection:
        order(connection)
        assert recorded.types == []
        connection.rollback()
        order(connection)
        connection.commit()
        assert recorded.types == ["ordered"]
    engine.dispose()


def test_what_is_recorded_is_what_would_be_stored(tmp_path):
    """Only the organization that an artifact gives, and times, are the relay's."""

    @emits("sold", failure="not_sold", mode="awaited", artifact_id=arg.item, value=arg.value)
    def sell(item, value):
        if value is None:
            raise ValueError("no \0 value")

    items = [7, 2.5, True, "a" * 3000, "nul\0", uuid.UUID(int=7), (1, 2), {"a": 1}, b"bytes"]
    values = [1, 2**70, float("nan"), "nul\0", ("a", 1.5), {"k\0": None}, {1: {2}}, object, None]

    def emit():
        for item, value in zip(items, values, strict=True):
            with contextlib.suppress(ValueError):
                sell(item, value)
            sidelight.emit("told", artifact_id=item, organization_id=item, value=value)

    def shown(event):
        error = getattr(event, "error_type", None) and {
            "error.type": event.error_type,
            "error.message": event.error_message,
        }
        attributes = event.attributes | (error or {})
        return event.type, event.artifact_id, attributes, event.mode, event.outcome, event.point

    with capture() as recorded:
        emit()
        for item in items:
            assert len(recorded.of("told", artifact_id=item)) == 1
    sidelight.configure(f"sqlite:///{tmp_path}/events.db", otlp=False, deadline=1.0)
    emit()
    assert sidelight.flush(60)
    with sidelight.Store(f"sqlite:///{tmp_path}/events.db") as store:
        stored = sorted(store.events(), key=lambda event: event.occurred_ns)
    assert [shown(event) for event in recorded] == [shown(event) for event in stored]
    named = [event.organization_id for event in recorded.of("told")]
    assert named == [event.organization_id for event in stored if event.type == "told"]
