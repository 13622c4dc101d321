"""What one sink has decoded, the others take: each record is decoded once, and none is missed."""

import threading
import time

import pytest
from tests.relay.test_relay import BOTH, ScriptedSink, emit
from tests.support.programs import wait_until

from sidelight.emission import Watermark
from sidelight.record import frame
from sidelight.relay import Relay, reading
from sidelight.relay.reading import STRETCH, SharedReadings
from sidelight.spool import PAGE, Scanner, Spool

THREE = ["store", "traces", "logs"]


@pytest.fixture
def decodes(monkeypatch):
    """Count the calls of `decode`, by payload."""
    calls = []
    original = reading.decode

    def counted(payload):
        calls.append(payload)
        return original(payload)

    monkeypatch.setattr(reading, "decode", counted)
    return calls


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path, {"instance": "i", "sinks": THREE})
    yield spool
    spool.close()


def test_a_relay_decodes_each_record_once_for_all_sinks(spool, decodes):
    sinks = [ScriptedSink(name) for name in THREE]
    emit(spool, *range(3 * STRETCH))
    relay = Relay(spool, sinks, Watermark())
    relay.drain()
    assert [sink.taken for sink in sinks] == [[*range(3 * STRETCH)]] * 3
    assert len(decodes) == 3 * STRETCH
    assert relay.workers[0].shared._stretches == {}
    assert relay.workers[0].shared._kept == 0


def test_threads_share_while_records_arrive(spool, decodes):
    sinks = [ScriptedSink(name) for name in THREE]
    relay = Relay(spool, sinks, Watermark())
    relay.start()
    try:
        for number in range(20):
            emit(spool, *range(100 * number, 100 * number + 100))
            time.sleep(0.002)
        assert relay.flush(20, needed=THREE)
    finally:
        assert relay.stop(10)
    assert [sorted(sink.taken) for sink in sinks] == [[*range(2000)]] * 3
    assert len(decodes) < 2 * 2000  # three times as many without sharing


def test_nothing_is_kept_for_a_sink_that_fails(spool, decodes):
    store, traces = (ScriptedSink(name) for name in BOTH)
    traces.down.set()
    relay = Relay(spool, [store, traces], Watermark())
    relay.start()
    try:
        emit(spool, 0)
        wait_until(lambda: relay.workers[1].failing)
        emit(spool, *range(1, 50))
        assert relay.flush(20)
        assert relay.workers[0].shared._kept <= 1
        traces.down.clear()
        wait_until(lambda: len(traces.taken) == 50)
    finally:
        assert relay.stop(10)
    assert store.taken == traces.taken == [*range(50)]


def test_what_cannot_be_decoded_is_not_shared(spool):
    emit(spool, 1)
    spool.append(frame(b"no record"))
    emit(spool, 2)
    losses, sinks = [], [ScriptedSink(name) for name in BOTH]
    Relay(spool, sinks, Watermark(), count=lambda *loss: losses.append(loss)).drain()
    assert [sink.taken for sink in sinks] == [[1, 2]] * 2
    assert {reason for reason, _ in losses} == {"unreadable record"}
    assert [entry.sinks for _, entry in spool.quarantine.entries()] == [tuple(BOTH)]


def test_a_reader_waits_for_another_that_reads_the_same_stretch(spool, decodes):
    emit(spool, *range(500))
    (segment,) = spool.own
    shared = SharedReadings(lambda: BOTH)
    arrived, go_on = threading.Event(), threading.Event()

    def pause():
        arrived.set()
        return not go_on.wait(10)

    taken = {}

    def read(name, is_contended):
        taken[name] = shared.next(Scanner(segment, PAGE), name, is_contended).records

    first = threading.Thread(target=read, args=("store", pause))
    first.start()
    assert arrived.wait(10)  # in the middle of the stretch
    second = threading.Thread(target=read, args=("traces", bool))
    second.start()
    go_on.set()
    first.join(10)
    second.join(10)
    assert taken["store"] == taken["traces"]
    assert len(decodes) == 500


def test_a_stretch_that_could_not_be_read_is_read_again(spool, monkeypatch):
    emit(spool, *range(10))
    (segment,) = spool.own
    shared = SharedReadings(lambda: BOTH)
    scanner = Scanner(segment, PAGE)
    with monkeypatch.context() as patch:
        patch.setattr(segment, "read", lambda *_: (_ for _ in ()).throw(OSError("disk")))
        with pytest.raises(OSError, match="disk"):
            shared.next(scanner, "store", bool)
    assert len(shared.next(scanner, "store", bool)) == 10
    assert len(shared.next(Scanner(segment, PAGE), "traces", bool)) == 10


def test_only_the_latest_records_are_kept(spool, monkeypatch):
    monkeypatch.setattr(reading, "_MOST", 40)
    emit(spool, *range(100))
    (segment,) = spool.own
    shared = SharedReadings(lambda: BOTH)
    monkeypatch.setattr(reading, "STRETCH", 10)
    scanner = Scanner(segment, PAGE)
    while len(shared.next(scanner, "store", bool)):
        assert shared._kept <= 40
    segment.cursors["store"] = scanner.offset
    late = Scanner(segment, PAGE)
    numbers = []
    while records := shared.next(late, "traces", bool).records:
        numbers += [moment.artifact_id for _, moment in records]
    assert numbers == [*range(100)]
    assert shared._kept == 0


@pytest.mark.parametrize("at", [1, 700, STRETCH + 5])
def test_no_record_is_passed_over_where_memory_ends_during_a_read(spool, monkeypatch, at):
    original, calls = reading.decode, []

    def hungry(payload):
        calls.append(payload)
        if len(calls) == at:
            raise MemoryError
        return original(payload)

    monkeypatch.setattr(reading, "decode", hungry)
    emit(spool, *range(STRETCH + 500))
    sinks = [ScriptedSink(name) for name in BOTH]
    relay = Relay(spool, sinks, Watermark())
    relay.start()
    try:
        assert relay.flush(20, needed=BOTH)
    finally:
        assert relay.stop(10)
    assert [sorted(set(sink.taken)) for sink in sinks] == [[*range(STRETCH + 500)]] * 2
