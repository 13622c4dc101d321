"""What a consumer does with what its store does not take, for a reason that no check foresaw."""

import pytest
from tests.support.stored import NOON, record

from sidelight.exceptions import SinkRefusedError

pytest.importorskip("confluent_kafka", reason="pip install 'sidelight[kafka]'")

from sidelight.stream.batches import Batch
from sidelight.stream.connection import StreamAddress
from sidelight.stream.consumer import StreamConsumer
from sidelight.stream.reading import Told

WRITER = {"instance": "p", "resource": {"service.name": "shop"}}
POISON = record("made", artifact="poison")


class _Store:
    """A store whose driver fails at one record, and which refuses every note of a process."""

    def __init__(self):
        self.stored, self.erased, self.has_deferred_work = [], [], False

    def write_of_many(self, records):
        if any(each is POISON for each, _ in records):
            raise OverflowError("Python int too large to convert to SQLite INTEGER")
        self.stored += records

    def note_alive(self, *_):
        raise SinkRefusedError(sink="store", problem="no such character")

    def sync(self):
        pass


@pytest.fixture
def aside():
    return []


@pytest.fixture
def consumer(aside):
    address = StreamAddress.parse("kafka://127.0.0.1:1/topic")  # nobody listens
    made = StreamConsumer(address, {}, "group", _Store(), aside.append)
    yield made
    made.close()


def test_a_record_at_which_the_driver_fails_is_set_aside_and_the_others_are_stored(consumer, aside):
    batch = Batch()
    for place, each in enumerate([record("made"), POISON, record("made")]):
        batch.records.append((each, WRITER))
        batch.places.append((0, place))
    assert consumer._store_batch(batch, lambda: False)
    assert len(consumer._store.stored) == 2
    ((partition, offset, service, content, reason, problem),) = aside
    assert (partition, offset, service, content) == (0, 1, "shop", POISON)
    assert reason == "refused by store"
    assert "too large" in problem


def test_a_note_that_the_store_refuses_is_set_aside(consumer, aside, monkeypatch):
    monkeypatch.setattr(consumer, "ends", lambda: {0: 8})
    monkeypatch.setattr("sidelight.stream.consumer.reached_of", lambda *_: {0: 8})
    monkeypatch.setattr(consumer, "_commit", lambda: None)
    consumer._notes.hold(Told(WRITER, (), None, NOON, "alive", False), 0, 7)
    consumer._store_notes(lambda: False)
    assert [each.offset for each in aside] == [7]
    assert consumer.progress.set_aside == 1
    assert not consumer._notes
