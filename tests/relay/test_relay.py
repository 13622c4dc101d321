"""The relay: order, retries, what is refused, the limit of the spool, who waits."""

import asyncio
import gc
import threading
import time
import weakref
from collections import Counter

import pytest
from opentelemetry import context as otel_context
from tests.support.programs import wait_until

from sidelight.emission.receipt import Receipt
from sidelight.emission.waiting import Watermark
from sidelight.exceptions import SinkRefusedError, SinkUnavailableError
from sidelight.record import Static, decode, encode, encode_static, frame, random_bits
from sidelight.relay.housekeeping import Housekeeping
from sidelight.relay.refusals import DOUBTFUL
from sidelight.relay.relay import Relay
from sidelight.relay.worker import Worker
from sidelight.spool.directory import segments_in
from sidelight.spool.header import PAGE
from sidelight.spool.supply import SMALLEST, SPARES
from sidelight.spool.writer import Spool

HEAD = encode_static(Static("e", "m:f", "scheduled", "succeeded", None))
LEDGER = encode_static(Static(None, "sidelight:ledger", "scheduled", "ledger", None))


def emit(spool, n):
    moment = (time.time_ns(), random_bits(64), n, None, 1, None, 0, 0, 0, None, None)
    data = frame(HEAD + encode(moment))
    try:
        spool.write(data)
    except ValueError:
        spool.append(data)


class ScriptedSink:
    """Takes records, each once, and fails as it is told."""

    def __init__(self, name="store"):
        self.name = name
        self.taken = []
        self.writers = []
        self.down = threading.Event()
        self.poison = set()

    def write(self, records, writer):
        if self.down.is_set():
            raise SinkUnavailableError(sink=self.name, problem="down")
        if self.poison & {moment.artifact_id for _, moment in records}:
            raise SinkRefusedError(sink=self.name, problem="poison")
        known = set(self.taken)
        self.taken += [m.artifact_id for _, m in records if m.artifact_id not in known]
        self.writers.append(writer)

    def sync(self):
        pass

    def close(self):
        pass

    def disown(self, *, busy):
        return True


@pytest.fixture
def losses():
    return []


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path / "spool", {"sinks": ["store"], "instance": "me"})
    yield spool
    spool.close()


@pytest.fixture
def worker(spool, losses):
    return Worker(ScriptedSink(), spool, lambda *loss: losses.append(loss), Watermark())


def drain(worker):
    while worker.step(retries=1):
        pass


def test_records_arrive_in_order_across_segments(worker, spool):
    for n in range(9000):
        emit(spool, n)
    assert len(spool.own) > 0
    drain(worker)
    assert worker.sink.taken == list(range(9000))
    assert worker.sink.writers[0]["instance"] == "me"


def test_what_cannot_be_delivered_now_comes_later_and_once(worker, spool):
    for n in range(10):
        emit(spool, n)
    worker.sink.down.set()
    with pytest.raises(SinkUnavailableError):
        worker.step(retries=2)
    assert worker.failing
    assert worker.is_behind()
    worker.sink.down.clear()
    drain(worker)
    assert worker.sink.taken == list(range(10))
    assert not worker.failing
    assert not worker.is_behind()


def test_poison_is_set_aside_and_its_neighbours_arrive(worker, spool, losses):
    for n in range(50):
        emit(spool, n)
    worker.sink.poison = {7, 30}
    drain(worker)
    assert sorted(worker.sink.taken) == [n for n in range(50) if n not in {7, 30}]
    assert [reason for reason, _ in losses] == ["refused by store"] * 2
    quarantined = list((spool.directory / "quarantine").iterdir())
    assert len(quarantined) == 2
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in quarantined)
    entries = [entry for _, entry in spool.quarantine.entries()]
    assert {decode(entry.payload)[1].artifact_id for entry in entries} == {7, 30}
    for entry in entries:
        assert (entry.kind, entry.refused_by, entry.sinks) == ("record", "store", ("store",))
        assert (entry.reason, entry.problem) == ("refused by store", "poison")
        assert entry.writer["instance"] == "me"


@pytest.mark.parametrize("poison", [{0}, {1}, {0, 1}])
def test_what_was_refused_keeps_no_segment_open(spool, poison):
    """No reference to it is left in a cycle with the error: it closes when nobody reads it."""
    dead = Spool(spool.directory, {"sinks": ["store"]})
    emit(dead, 0)
    emit(dead, 1)
    dead.close()
    spool.adopt()
    (segment,) = map(weakref.ref, spool.adopted)
    worker = Worker(ScriptedSink(), spool, lambda *_: None, Watermark())
    worker.sink.poison = poison
    emit(spool, 2)  # else nothing tells that the store is well
    gc.collect()
    gc.disable()
    try:
        drain(worker)
        assert segment().delivered_to == {"store"}
        spool.delete(segment())
        assert segment() is None
    finally:
        gc.enable()


def test_a_sink_that_has_no_memory_left_is_asked_again(worker, spool, losses):
    emit(spool, 1)
    write = worker.sink.write

    def starve(records, writer):
        worker.sink.write = write
        raise MemoryError

    worker.sink.write = starve
    drain(worker)
    assert worker.sink.taken == [1]
    assert not losses


def test_a_sink_that_chokes_in_its_own_way_is_treated_like_a_refusal(worker, spool, losses):
    emit(spool, 1)
    worker.sink.poison = {1}
    write = worker.sink.write

    def choke(records, writer):
        try:
            write(records, writer)
        except SinkRefusedError:
            raise ZeroDivisionError from None

    worker.sink.write = choke
    drain(worker)
    assert losses[0][0] == "refused by store"


def test_a_record_that_is_none_is_counted(worker, spool, losses):
    spool.write(frame(b"\x92 not a record"))
    emit(spool, 1)
    drain(worker)
    assert worker.sink.taken == [1]
    assert losses[0][0] == "unreadable record"


def test_damage_that_several_sinks_meet_is_set_aside_and_counted_once(spool, losses):
    spool.write(b"these bytes are no record")
    emit(spool, 1)
    spool.write(frame(b"\x92 not a record"))
    spool.rotate(spool._current)
    relay = Relay(
        spool,
        [ScriptedSink(), ScriptedSink("traces")],
        Watermark(),
        count=lambda *loss: losses.append(loss),
    )
    relay.drain()
    assert [worker.sink.taken for worker in relay.workers] == [[1], [1]]
    assert sorted(reason for reason, _ in losses) == [
        "damaged stretch of the spool",
        "unreadable record",
    ]
    entries = [entry for _, entry in spool.quarantine.entries()]
    assert [entry.sinks for entry in entries] == [("store", "traces")] * 2
    stretch = next(entry for entry in entries if entry.kind == "stretch")
    assert (stretch.payload, stretch.offset) == (b"these bytes are no record", PAGE)


def test_what_is_refused_again_after_a_crash_is_one_entry(spool, losses):
    """The process died after it had set records aside, and before it moved its cursor."""
    emit(spool, 7)
    for _ in range(2):
        worker = Worker(ScriptedSink(), spool, lambda *loss: losses.append(loss), Watermark())
        worker.sink.poison = {7}
        spool._current.cursors["store"] = PAGE
        drain(worker)
    assert [reason for reason, _ in losses] == ["refused by store"]
    assert len([*spool.quarantine.entries()]) == 1


def test_a_flood_of_poison_fills_no_disk_and_is_counted(worker, spool, losses, monkeypatch):
    monkeypatch.setattr("sidelight.spool.quarantine.LIMIT", 20)
    for n in range(100):
        emit(spool, n)
    worker.sink.poison = set(range(99))
    drain(worker)
    assert worker.sink.taken == [99]
    assert len([*spool.quarantine.entries()]) == 20
    counted = Counter(reason for reason, _ in losses)
    assert counted == {"refused by store": 99, "not kept in quarantine": 79}
    assert ("not kept in quarantine", "refused by store: the quarantine is full") in losses


def refusing_store(worker):
    """A rule that no event meets; what a process says of itself is no event."""
    write = worker.sink.write

    def refuse(records, writer):
        if any(static.type is not None for static, _ in records):
            raise SinkRefusedError(sink="store", problem="closed for the night")
        write(records, writer)

    worker.sink.write = refuse
    return lambda: setattr(worker.sink, "write", write)


def test_a_store_that_refuses_everything_is_asked_again(worker, spool, losses):
    reopen = refusing_store(worker)
    for n in range(500):
        emit(spool, n)
    spool.write(frame(LEDGER + encode((time.time_ns(), 0, *[None] * 4, 0, 0, 0, {}, None))))
    with pytest.raises(SinkUnavailableError, match="refuses every event: closed for the night"):
        drain(worker)
    assert worker.failing
    assert "closed" in worker.health.problem
    assert (losses, [*spool.quarantine.entries()]) == ([], [])
    reopen()
    drain(worker)
    assert worker.sink.taken == [*range(500), None]
    assert not worker.failing


def test_events_that_come_one_by_one_are_set_aside_until_the_store_is_in_doubt(
    worker, spool, losses
):
    emit(spool, 0)
    drain(worker)
    reopen = refusing_store(worker)
    for n in range(1, DOUBTFUL + 1):
        emit(spool, n)
        drain(worker)
    assert len(losses) == DOUBTFUL
    emit(spool, 21)
    with pytest.raises(SinkUnavailableError):
        drain(worker)
    reopen()
    worker.sink.poison = {21}
    emit(spool, 22)
    drain(worker)
    assert worker.sink.taken == [0, 22]
    assert len(losses) == DOUBTFUL + 1


@pytest.mark.parametrize("where", ["the same segment", "the next one", "another process's"])
def test_many_that_are_refused_hold_up_nobody(spool, losses, tmp_path, where):
    """They are to blame as soon as there is something else that the store takes."""
    many = set(range(DOUBTFUL + 5))
    sink = ScriptedSink()
    sink.poison = many
    writer = spool
    if where == "another process's":
        writer = Spool(spool.directory, {"sinks": ["store"], "instance": "another"})
    for n in many:
        emit(writer, n)
    if where == "the next one":
        spool.rotate(spool._current)
    elif where == "another process's":
        writer.close()
        spool.adopt()
        assert spool.adopted
    relay = Relay(spool, [sink], Watermark(), count=lambda *loss: losses.append(loss))
    relay.start()
    try:
        assert not relay.flush(0.3)
        assert not losses
        emit(spool, 100)
        assert relay.flush(10) is (where == "another process's")  # refused: told once
        assert relay.flush(10)
    finally:
        assert relay.stop(5)
    assert sink.taken == [100]
    assert len(losses) == len(many)


def test_a_new_worker_goes_on_where_the_last_one_was(worker, spool):
    for n in range(10):
        emit(spool, n)
    drain(worker)
    emit(spool, 10)
    again = Worker(ScriptedSink(), spool, lambda *_: None, Watermark())
    drain(again)
    assert again.sink.taken == [10]


def test_one_sink_does_not_hold_up_another(spool):
    store, telemetry = ScriptedSink(), ScriptedSink("traces")
    telemetry.down.set()
    relay = Relay(spool, [store, telemetry], Watermark())
    relay.start()
    try:
        for n in range(100):
            emit(spool, n)
        assert relay.flush(5)  # the collector does not answer, and is not waited for
        assert store.taken == list(range(100))
        assert relay.health()["traces"].failing_since is not None
        telemetry.down.clear()
        until = time.monotonic() + 10
        while len(telemetry.taken) < 100 and time.monotonic() < until:
            time.sleep(0.02)
        assert telemetry.taken == list(range(100))
        assert relay.health()["traces"].failing_since is None
    finally:
        assert relay.stop(5)


def test_the_store_comes_first_while_a_segment_is_in_memory_only():
    """A kill would lose the segment: the Collector must not have what the store can never have."""
    store, traces, opened = ScriptedSink(), ScriptedSink("traces"), threading.Event()
    take = store.write
    store.write = lambda records, writer: opened.wait(30) and take(records, writer)
    relay = Relay(spool := Spool(None, {}), [store, traces], Watermark())
    relay.start()
    for n in range(20):
        emit(spool, n)
    time.sleep(0.3)  # several looks of each worker at the spool
    assert traces.taken == []
    opened.set()
    assert relay.flush(30.0)
    wait_until(lambda: traces.taken == store.taken == list(range(20)))
    store.down.set()  # a store that fails holds up no telemetry
    emit(spool, 20)
    wait_until(lambda: 20 in traces.taken)
    relay.stop(5.0)
    spool.close()


def test_flush_says_that_the_store_is_behind(spool):
    store = ScriptedSink()
    store.down.set()
    relay = Relay(spool, [store], Watermark())
    relay.start()
    try:
        emit(spool, 1)
        assert not relay.flush(0.2)
        store.down.clear()
        assert relay.flush(10)
    finally:
        assert relay.stop(5)


def test_flush_waits_for_what_is_needed(spool):
    """A failing sink that is needed is waited for by who is patient; one that is not, by none."""
    store, traces = ScriptedSink(), ScriptedSink("traces")
    relay = Relay(spool, [store, traces], Watermark())
    traces.down.set()
    relay.start()
    emit(spool, 1)
    assert relay.flush(5.0)
    assert not relay.flush(5.0, patient=False, needed=("traces",))
    begun = time.monotonic()
    assert not relay.flush(0.2, needed=("traces",))
    assert time.monotonic() - begun >= 0.2
    later(traces.down.clear)
    assert relay.flush(5.0, needed=("traces",))
    assert relay.stop(5.0)


def test_what_sinks_do_is_not_made_into_spans(spool):
    class Looking(ScriptedSink):
        def write(self, records, writer):
            super().write(records, writer)
            self.context = otel_context.get_current()

    sink = Looking()
    relay = Relay(spool, [sink], Watermark())
    relay.start()
    emit(spool, 1)
    assert relay.flush(5.0)
    assert relay.stop(5.0)
    assert any("suppress_instrumentation" in key and on for key, on in sink.context.items())


def test_segments_go_when_every_sink_has_passed(spool):
    relay = Relay(spool, [ScriptedSink(), ScriptedSink("traces")], Watermark())
    while len(spool.own) < 3:
        emit(spool, 1)
    relay.drain()
    assert len(list(segments_in(spool.directory))) == 1


def test_segments_stay_for_a_sink_that_only_their_writer_had(tmp_path):
    writer = Spool(tmp_path, {"sinks": ["store", "traces"]})
    emit(writer, 1)
    writer.close()
    spool = Spool(tmp_path, {"sinks": ["store"]})
    relay = Relay(spool, [ScriptedSink()], Watermark())
    relay.drain()
    assert relay.workers[0].sink.taken == [1]
    spool.close()
    assert len(list(segments_in(tmp_path))) == 1
    spool = Spool(tmp_path, {"sinks": ["store", "traces"]})
    relay = Relay(spool, [ScriptedSink(), ScriptedSink("traces")], Watermark())
    relay.drain()
    assert [worker.sink.taken for worker in relay.workers] == [[], [1]]
    spool.close()
    assert not list(segments_in(tmp_path))


def leave(directory, **meta):
    """What forty dead processes have left: more than are taken over at once."""
    for number in range(40):
        spool = Spool(directory, meta)
        emit(spool, number)
        spool.close()


def test_a_drain_deletes_all_that_the_dead_have_left(tmp_path):
    """However many they are: no more than some are taken over at once."""
    leave(tmp_path, sinks=["store"], relay="external")
    relay = Relay(Spool(tmp_path, {"sinks": ["store"]}), [ScriptedSink()], Watermark())
    assert relay.drain() == {"store": 40}
    relay.stop(1.0)
    relay.spool.close()
    assert segments_in(tmp_path) == []


@pytest.fixture
def dead(tmp_path):
    """Beside what forty have left."""
    leave(tmp_path, sinks=["store", "traces"])
    return Spool(tmp_path, {"sinks": ["store", "traces"]})


def test_a_drain_brings_every_sink_all_that_the_dead_have_left(dead):
    relay = Relay(dead, [ScriptedSink(), ScriptedSink("traces")], Watermark())
    assert relay.drain() == {"store": 40, "traces": 40}
    assert relay.stop(1.0)
    dead.close()
    assert segments_in(dead.directory) == []


def test_a_drain_brings_the_store_all_where_nobody_takes_the_telemetry(dead):
    relay = Relay(dead, [ScriptedSink(), ScriptedSink("traces")], Watermark())
    store, traces = (worker.sink for worker in relay.workers)
    traces.down.set()
    with pytest.raises(SinkUnavailableError):
        relay.drain(retries=1)
    assert sorted(store.taken) == list(range(40))
    traces.down.clear()
    relay.drain()
    assert sorted(traces.taken) == list(range(40))
    assert relay.stop(1.0)
    dead.close()
    assert segments_in(dead.directory) == []


def test_the_store_gets_what_the_dead_have_left_whatever_the_collector_does(dead):
    """What only waits for the telemetry gives its place to what the store has not."""
    relay = Relay(dead, [ScriptedSink(), ScriptedSink("traces")], Watermark())
    store, traces = (worker.sink for worker in relay.workers)
    traces.down.set()
    relay.start()
    try:
        wait_until(lambda: sorted(store.taken) == list(range(40)))
        assert len(dead.adopted) <= 17
        traces.down.clear()
        wait_until(lambda: sorted(traces.taken) == list(range(40)))
        wait_until(lambda: len(segments_in(dead.directory)) == 3)  # its own, and two spares
    finally:
        assert relay.stop(5.0)
        dead.close()


def test_the_dead_are_taken_over_as_fast_as_they_are_delivered(tmp_path, losses):
    """More of them than at once, and before the next look at the directory."""
    leave(tmp_path, sinks=["store"])
    spool = Spool(tmp_path, {"sinks": ["store"]})
    store = Worker(sink := ScriptedSink(), spool, lambda *_: None, Watermark())
    keeper = housekeeping_of(spool, ["store"], losses, [])
    for _ in range(4):
        keeper.step()
        drain(store)
    assert len(sink.taken) == 40
    spool.close()


def housekeeping_of(spool, sinks, losses, spans):
    return Housekeeping(spool, sinks, lambda: None, lambda *loss: losses.append(loss), spans.append)


def test_at_its_limit_the_spool_lets_telemetry_go_first(spool, losses):
    store = Worker(ScriptedSink(), spool, lambda *_: None, Watermark())
    while len(spool.own) < 6:
        emit(spool, 1)
    drain(store)
    spool.supply.limit = 4 * 1024 * 1024
    spans = []
    housekeeping_of(spool, ["store", "traces"], losses, spans)._enforce_limit()
    assert {reason for reason, _ in losses} == {"spool full: telemetry let go"}
    assert spool.usage() < spool.supply.limit
    assert not spool.supply.full


def test_telemetry_goes_while_an_eighth_is_free(spool, losses):
    """The disk may hold up the keeper for seconds; and new events keep their spans."""
    store = Worker(ScriptedSink(), spool, lambda *_: None, Watermark())
    while len(spool.own) < 32:
        emit(spool, 1)
    drain(store)
    spool.supply.limit = spool.usage() + 3 * SMALLEST
    spans = []
    housekeeping_of(spool, ["store", "traces"], losses, spans)._enforce_limit()
    assert losses
    assert 0.8 < spool.usage() / spool.supply.limit <= 0.875
    assert spans == [True]


def test_telemetry_goes_as_soon_as_there_is_no_room(spool, losses):
    spool.supply.limit = 8 * 1024 * 1024
    store = Worker(ScriptedSink(), spool, lambda *_: None, Watermark())
    keeper = housekeeping_of(spool, ["store", "traces"], losses, [])
    keeper.step()  # and measures again in half a second, if nothing hurries it
    for _ in range(20):  # segments
        newest = spool.own[-1]
        while spool.own[-1] is newest:
            emit(spool, 1)
        drain(store)
        keeper.step()
    assert len(losses) > 10
    assert spool.usage() <= spool.supply.limit


def test_the_room_of_what_was_put_off_can_be_had(dead, losses):
    """It is telemetry too; what the store has not got stays."""
    store = Worker(ScriptedSink(), dead, lambda *_: None, Watermark())
    keeper = housekeeping_of(dead, ["store", "traces"], losses, [])
    keeper.step()
    for _ in range(4):
        drain(store)
        keeper.collect()
    assert len(store.sink.taken) == 40
    dead.supply.limit = 4 * 1024 * 1024
    for _ in range(5):
        keeper._enforce_limit()
    assert dead.usage() <= dead.supply.limit
    assert 30 < len(losses) <= 40
    assert {reason for reason, _ in losses} == {"spool full: telemetry let go"}
    dead.close()


def test_there_is_room_before_both_spares_are_used(spool, losses):
    """A caller who fills segments while the keeper sleeps finds the next ones allocated."""
    spool.supply.limit = 8 * 1024 * 1024
    store = Worker(ScriptedSink(), spool, lambda *_: None, Watermark())
    keeper = housekeeping_of(spool, ["store", "traces"], losses, [])
    for _ in range(10):
        keeper.step()
        for _ in range(SPARES):
            newest = spool.own[-1]
            while spool.own[-1] is newest:
                emit(spool, 1)
        drain(store)
    assert len(losses) > 10


def test_what_every_sink_has_is_no_loss_when_it_goes(spool, losses):
    spool.sync_sinks = lambda: False  # else it would have gone before
    store = Worker(ScriptedSink(), spool, lambda *_: None, Watermark())
    while len(spool.own) < 6:
        emit(spool, 1)
    drain(store)
    spool.supply.limit = 4 * 1024 * 1024
    housekeeping_of(spool, ["store"], losses, []).step()
    assert spool.usage() <= spool.supply.limit
    assert not losses


def test_what_is_delivered_while_room_is_made_is_no_loss_either(spool, losses):
    while len(spool.own) < 6:
        emit(spool, 1)
    full = [segment for segment in spool.own if segment.sealed]
    full[0].delivered_to.add("store")
    spool.sync_sinks = lambda: [segment.delivered_to.add("store") for segment in full]
    spool.supply.limit = 4 * 1024 * 1024
    housekeeping_of(spool, ["store"], losses, [])._enforce_limit()
    assert len(spool.own) < 5
    assert not losses


def test_what_the_store_has_not_is_never_let_go(spool, losses):
    while len(spool.own) < 6:
        emit(spool, 1)
    spool.supply.limit = 4 * 1024 * 1024
    spans = []
    housekeeping_of(spool, ["store", "traces"], losses, spans)._enforce_limit()
    assert not losses
    assert spool.supply.full
    assert spans == [False]


def test_spans_are_let_go_before_events(spool, losses):
    while len(spool.own) < 10:
        emit(spool, 1)
    spool.supply.limit = 11 * 1024 * 1024
    spans = []
    housekeeping_of(spool, ["store"], losses, spans)._enforce_limit()
    assert not spool.supply.full
    assert spans == [False]


# -- waiting ------------------------------------------------------------------------------------


@pytest.fixture
def progress():
    progress = Watermark()
    progress.store_answers = True
    return progress


def receipt(progress, deadline=5.0):
    return Receipt(progress, (1, PAGE + 100), time.time_ns(), 1, deadline)


def later(function, *arguments):
    timer = threading.Timer(0.05, function, arguments)
    timer.start()
    return timer


def test_a_receipt_waits_for_the_store(progress):
    waiting = receipt(progress)
    assert waiting.state == "spooled"
    timer = later(progress.advance, (1, PAGE + 100))
    assert waiting.wait().state == "stored"
    timer.join()
    assert str(waiting) == waiting.event_id


def test_a_receipt_is_awaited(progress):
    async def main():
        waiting = receipt(progress)
        timer = later(progress.advance, (2, 0))
        await waiting
        timer.join()
        return waiting.state

    assert asyncio.run(main()) == "stored"


def test_nobody_waits_behind_one_who_has_waited_in_vain(progress):
    assert not progress.wait((1, PAGE + 100), 0.01)
    begun = time.perf_counter()
    assert not progress.wait((1, PAGE + 200), 5.0)
    assert not asyncio.run(progress.arrive((1, PAGE + 200), 5.0))
    progress.advance((1, PAGE + 99))
    assert not progress.wait((1, PAGE + 200), 5.0)
    assert time.perf_counter() - begun < 1.0
    progress.advance((1, PAGE + 100))  # as far as that one wanted: now it is worth while again
    timer = later(progress.advance, (1, PAGE + 200))
    assert progress.wait((1, PAGE + 200), 5.0)
    timer.join()


def test_no_wait_is_longer_than_its_deadline(progress):
    begun = time.perf_counter()
    assert receipt(progress, 0.05).wait().state == "spooled"
    assert asyncio.run(_awaited(receipt(progress, 0.05))).state == "spooled"
    assert time.perf_counter() - begun < 2
    assert not progress._waiters


async def _awaited(waiting):
    return await waiting


@pytest.mark.parametrize("state", ["late", "inactive"])
def test_where_no_wait_can_end_in_time_there_is_none(progress, state):
    progress.is_contended = state == "late"
    progress.store_answers = state != "inactive"
    progress.wake_relay = lambda: pytest.fail("nobody is to be woken")
    assert receipt(progress, 60).wait().state == "spooled"
    assert asyncio.run(_awaited(receipt(progress, 60))).state == "spooled"


def test_an_event_loop_that_closed_meanwhile_hurts_nobody(progress):
    async def give_up():
        task = asyncio.ensure_future(_awaited(receipt(progress)))
        await asyncio.sleep(0.01)
        task.cancel()
        waiters = list(progress._waiters)
        await asyncio.gather(task, return_exceptions=True)
        return waiters

    progress._waiters += asyncio.run(give_up())
    progress.advance((9, 0))
    assert not progress._waiters


def test_a_lost_event_has_an_empty_receipt(progress):
    lost = Receipt(progress, None, time.time_ns(), 1, 1.0)
    assert (lost.state, str(lost), lost.wait().state) == ("lost", "", "lost")
    assert asyncio.run(_awaited(lost)).state == "lost"
