"""What a delivery tells receipts: of a sink that refuses some records and has taken the rest."""

import contextlib
import sqlite3
import time
from types import SimpleNamespace

import pytest

from sidelight.emission import Receipt, Watermark
from sidelight.host import Loop
from sidelight.record import Moment, Static
from sidelight.relay.delivery import Delivery
from sidelight.store import StoreSink
from sidelight.store.eraser import Eraser

HOUR = 3600 * 10**9
MADE = Static("note.made", "p", "scheduled", "succeeded", None)


def record(bits, artifact, occurred):
    return MADE, Moment(occurred, bits, artifact, None, None, None, 0, 0, 0, None, None)


@pytest.fixture
def sink(tmp_path):
    """A store that keeps the last hour, and in which an artifact was erased."""
    url = f"sqlite:///{tmp_path / 'events.db'}"
    sink = StoreSink(url)
    sink.write([], {})
    with Eraser(url) as eraser:
        for _ in eraser.run(eraser.plan(artifact_id="erased")):
            pass
    with contextlib.closing(sqlite3.connect(tmp_path / "events.db")) as connection, connection:
        connection.execute("UPDATE retention SET kept_since = ?", (time.time_ns() - HOUR,))
    yield sink
    sink.close()


@pytest.fixture
def watermark():
    return Watermark()


@pytest.fixture
def quarantined():
    return []


@pytest.fixture
def delivery(sink, watermark, quarantined):
    return Delivery(
        sink,
        Loop("x", lambda: None),
        watermark,
        lambda: iter(()),
        lambda *about, **_: quarantined.append(about[1]),
    )


def test_a_record_that_is_too_old_changes_nothing_for_the_rest(delivery, watermark, quarantined):
    now = time.time_ns()
    batch = [record(1, "old", now - 2 * HOUR), record(2, "erased", now), record(3, "kept", now)]
    delivery.health.fail("it was away")
    watermark.store_answers = False
    segment = SimpleNamespace(number=1, meta={"instance": f"{3:016x}", "resource": {}})
    delivery.deliver(batch, segment, 0)
    watermark.advance((1, 9999))
    states = [Receipt(watermark, (1, 100), now, bits, 0.0).state for bits in (1, 2, 3)]
    assert states == ["refused", "refused", "stored"]
    assert quarantined == ["older than the store keeps"]
    assert watermark.store_answers
    assert delivery.health.failing_since is None
