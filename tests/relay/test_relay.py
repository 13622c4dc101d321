"""The relay: order, retries, refusals, flush, orphans, and the limit of the spool."""

import gc
import threading
import time
import weakref
from collections import Counter

import msgspec
import pytest
from opentelemetry import context as otel_context
from tests.support.platforms import needs_spool_files
from tests.support.programs import wait_until

from sidelight.emission import Watermark
from sidelight.exceptions import SinkRefusedError, SinkUnavailableError
from sidelight.host import HAS_FILE_LOCKS
from sidelight.record import Static, decode, encode, encode_static, frame, random_bits
from sidelight.record.ledger import LedgerPart, ledger_part
from sidelight.relay import Relay
from sidelight.relay.housekeeping import Housekeeping
from sidelight.relay.refusals import DOUBTFUL
from sidelight.relay.worker import Worker
from sidelight.spool import PAGE, SMALLEST, SPARES, Segment, Spool, segments_in

HEAD = encode_static(Static("e", "m:f", "scheduled", "succeeded", None))
LEDGER = encode_static(Static(None, "sidelight:ledger", "scheduled", "ledger", None))
BOTH = ["store", "traces"]


def emit(spool, *numbers):
    for n in numbers:
        moment = (time.time_ns(), random_bits(64), n, None, 1, None, 0, 0, 0, None, None)
        spool.append(frame(HEAD + encode(moment)))


def fill(spool, segments):
    """Emit until the spool has so many segments."""
    while len(spool.own) < segments:
        emit(spool, *range(1000))


class ScriptedSink:
    """Takes records, each once, and fails on request."""

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
def reasons(losses):
    return lambda: Counter(reason for reason, _ in losses)


@pytest.fixture
def count(losses):
    return lambda *loss: losses.append(loss)


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path / "spool", {"sinks": ["store"], "instance": "me"})
    yield spool
    spool.close()


@pytest.fixture
def worker(spool, count):
    return Worker(ScriptedSink(), spool, count, Watermark())


@pytest.fixture
def relay_of(count):
    """Make relays with scripted sinks; end those that were started."""
    relays = []

    def make(spool, *names):
        relays.append(
            Relay(spool, [ScriptedSink(n) for n in names or BOTH], Watermark(), count=count)
        )
        return relays[-1], *(worker.sink for worker in relays[-1].workers)

    yield make
    for relay in relays:
        if relay.housekeeping.loop.is_running:
            assert relay.stop(5.0)


def drain(worker):
    while worker.step(retries=1):
        pass


def entries(spool):
    return [entry for _, entry in spool.quarantine.entries()]


# -- order and retries --------------------------------------------------------------------------


def test_records_arrive_in_order_across_segments(worker, spool):
    emit(spool, *range(30_000))
    assert len(spool.own) > 1
    drain(worker)
    assert worker.sink.taken == [*range(30_000)]
    assert worker.sink.writers[0]["instance"] == "me"


def test_a_new_worker_continues_at_the_cursor(worker, spool):
    emit(spool, *range(10))
    drain(worker)
    emit(spool, 10)
    again = Worker(ScriptedSink(), spool, lambda *_: None, Watermark())
    drain(again)
    assert again.sink.taken == [10]


def test_an_unavailable_sink_gets_its_records_later_and_once(worker, spool):
    emit(spool, *range(10))
    worker.sink.down.set()
    with pytest.raises(SinkUnavailableError):
        worker.step(retries=2)
    assert worker.failing
    assert worker.is_behind()
    worker.sink.down.clear()
    drain(worker)
    assert worker.sink.taken == [*range(10)]
    assert not worker.failing
    assert not worker.is_behind()


def test_a_sink_that_has_no_memory_left_is_tried_again(worker, spool, losses):
    emit(spool, 1)
    write = worker.sink.write

    def starve(*_):
        worker.sink.write = write
        raise MemoryError

    worker.sink.write = starve
    drain(worker)
    assert (worker.sink.taken, losses) == ([1], [])


class DeferringSink(ScriptedSink):
    """Has deferred work, in which a defect or an outage may lie."""

    has_deferred_work = True
    attempts = 0
    error = None

    def write(self, records, writer):
        super().write(records, writer)
        self.attempts += 1
        if self.error is not None:
            raise self.error
        self.has_deferred_work = False


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("a defect"),
        SinkRefusedError(sink="store", problem="a defect"),
        SinkUnavailableError(sink="store", problem="a defect"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_deferred_work_that_fails_is_told_and_tried_again_after_a_pause(spool, count, error):
    worker = Worker(DeferringSink(), spool, count, Watermark())
    worker.sink.error = error
    rests = []
    worker.loop.rest = rests.append
    assert worker.continue_deferred_work()
    assert worker.failing
    assert "a defect" in worker.health.problem
    assert not worker.watermark.store_answers
    assert rests == [1.0]
    worker.sink.error = None
    assert worker.continue_deferred_work()
    assert not worker.failing
    assert worker.watermark.store_answers
    assert not worker.continue_deferred_work()
    assert (rests, worker.sink.attempts) == ([1.0], 2)


# -- refusals -----------------------------------------------------------------------------------


def test_poison_is_quarantined_and_its_neighbours_arrive(worker, spool, reasons):
    emit(spool, *range(50))
    worker.sink.poison = {7, 30}
    drain(worker)
    assert sorted(worker.sink.taken) == [n for n in range(50) if n not in {7, 30}]
    assert reasons() == {"refused by store": 2}
    assert {decode(entry.payload)[1].artifact_id for entry in entries(spool)} == {7, 30}
    for entry in entries(spool):
        assert (entry.kind, entry.refused_by, entry.sinks) == ("record", "store", ("store",))
        assert (entry.reason, entry.problem) == ("refused by store", "poison")
        assert entry.writer["instance"] == "me"


@needs_spool_files
@pytest.mark.parametrize("poison", [{0}, {1}, {0, 1}])
def test_a_refusal_keeps_no_segment_open(spool, poison):
    """No reference to the segment is left in a cycle with the error."""
    writer = Spool(spool.directory, {"sinks": ["store"]})
    emit(writer, 0, 1)
    writer.close()
    spool.adopt()
    (segment,) = map(weakref.ref, spool.adopted)
    worker = Worker(ScriptedSink(), spool, lambda *_: None, Watermark())
    worker.sink.poison = poison
    emit(spool, 2)  # tells that the store takes events
    gc.collect()
    gc.disable()
    try:
        drain(worker)
        assert segment().delivered_to == {"store"}
        spool.delete(segment())
        assert segment() is None
    finally:
        gc.enable()


def test_any_other_error_of_a_sink_is_a_refusal(worker, spool, reasons):
    emit(spool, 1)

    def choke(records, _):
        if records:
            raise ZeroDivisionError

    worker.sink.write = choke
    drain(worker)
    assert reasons() == {"refused by store": 1}


@needs_spool_files
def test_damage_is_quarantined_and_counted_once_for_all_sinks(spool, relay_of, reasons):
    spool.write(b"these bytes are no record")
    emit(spool, 1)
    spool.write(frame(b"\x92 not a record"))
    spool.rotate(spool.own[-1])
    relay, store, traces = relay_of(spool)
    relay.drain()
    assert store.taken == traces.taken == [1]
    assert reasons() == {"damaged stretch of the spool": 1, "unreadable record": 1}
    assert [entry.sinks for entry in entries(spool)] == [("store", "traces")] * 2
    stretch = next(entry for entry in entries(spool) if entry.kind == "stretch")
    assert (stretch.payload, stretch.offset) == (b"these bytes are no record", PAGE)


def test_a_record_refused_again_after_a_crash_is_one_entry(spool, count, reasons):
    """The process died after it had quarantined the record, and before it moved its cursor."""
    emit(spool, 7)
    for _ in range(2):
        worker = Worker(ScriptedSink(), spool, count, Watermark())
        worker.sink.poison = {7}
        spool.own[-1].cursors["store"] = PAGE
        drain(worker)
    assert reasons() == {"refused by store": 1}
    assert len(entries(spool)) == 1


def test_a_flood_of_poison_fills_no_disk_and_is_counted(
    worker, spool, losses, reasons, monkeypatch
):
    monkeypatch.setattr("sidelight.spool.quarantine.LIMIT", 20)
    emit(spool, *range(100))
    worker.sink.poison = set(range(99))
    drain(worker)
    assert worker.sink.taken == [99]
    assert len(entries(spool)) == 20
    assert reasons() == {"refused by store": 99, "not kept in quarantine": 79}
    assert ("not kept in quarantine", "refused by store: the quarantine is full") in losses


@pytest.mark.parametrize("limit", [1000, 0], ids=["kept", "not kept"])
def test_refused_ledgers_are_one_entry_and_counted_once(worker, spool, reasons, monkeypatch, limit):
    """Each loss makes another ledger: else a store that refuses ledgers fills the quarantine."""
    monkeypatch.setattr("sidelight.spool.quarantine.LIMIT", limit)
    worker.sink.poison = {None}
    parts = (
        {"losses": {"a": 1, "b": 5}, "problems": {"b": "late"}},
        {"losses": {"a": 3, "b": 4}, "problems": {"a": "new", "b": "early"}, "began": 7},
        {"costs": {"m:f": {"count": 2, "over": 0, "max": 9, "buckets": [[1, 2]]}}, "ended": True},
        {"costs": {"m:f": {"count": 1, "over": 0, "max": 1, "buckets": [[1, 1]]}}},
    )
    for n, part in enumerate(parts):
        spool.write(frame(LEDGER + encode((n, n, *[None] * 4, 0, 0, 0, part, None))))
        drain(worker)
    emit(spool, 1)
    drain(worker)
    assert worker.sink.taken == [1]
    once = {"refused by store": 1} | ({} if limit else {"not kept in quarantine": 1})
    assert reasons() == once
    told = [ledger_part(decode(entry.payload)[1]) for entry in entries(spool)]
    latest = {"losses": {"a": 3, "b": 5}, "problems": {"a": "new", "b": "late"}}
    whole = msgspec.convert(parts[1] | parts[2] | latest, LedgerPart)
    assert told == ([whole] if limit else [])


def close_store(worker):
    """Make the store refuse each event, but no ledger; return what opens it again."""
    write = worker.sink.write

    def refuse(records, writer):
        if any(static.type is not None for static, _ in records):
            raise SinkRefusedError(sink="store", problem="closed for the night")
        write(records, writer)

    worker.sink.write = refuse
    return lambda: setattr(worker.sink, "write", write)


def test_a_store_that_refuses_everything_is_tried_again(worker, spool, losses):
    reopen = close_store(worker)
    emit(spool, *range(500))
    spool.write(frame(LEDGER + encode((time.time_ns(), 0, *[None] * 4, 0, 0, 0, {}, None))))
    with pytest.raises(SinkUnavailableError, match="refuses every event: closed for the night"):
        drain(worker)
    assert worker.failing
    assert "closed" in worker.health.problem
    assert losses == entries(spool) == []
    reopen()
    drain(worker)
    assert worker.sink.taken == [*range(500), None]
    assert not worker.failing


def test_single_events_are_quarantined_until_the_store_is_in_doubt(worker, spool, losses):
    emit(spool, 0)
    drain(worker)
    reopen = close_store(worker)
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


@needs_spool_files
@pytest.mark.parametrize("where", ["the same segment", "the next one", "another process's"])
def test_much_poison_delays_nothing_once_the_store_takes_another_event(
    spool, losses, relay_of, where
):
    poison = set(range(DOUBTFUL + 5))
    writer = spool
    if where == "another process's":
        writer = Spool(spool.directory, {"sinks": ["store"], "instance": "another"})
    emit(writer, *poison)
    if where == "the next one":
        spool.rotate(spool.own[-1])
    elif where == "another process's":
        writer.close()
        spool.adopt()
        assert spool.adopted
    relay, store = relay_of(spool, "store")
    store.poison = poison
    relay.start()
    assert not relay.flush(0.3)
    assert not losses
    emit(spool, 100)
    assert relay.flush(20) is (where == "another process's")  # False: own records were refused
    assert store.taken == [100]
    assert len(losses) == len(poison)


# -- the threads --------------------------------------------------------------------------------


def test_a_sink_that_is_down_delays_no_other(spool, relay_of):
    relay, store, traces = relay_of(spool)
    traces.down.set()
    relay.start()
    emit(spool, *range(100))
    assert relay.flush(60)  # the collector does not answer, and is not waited for
    assert store.taken == [*range(100)]
    assert relay.health()["traces"].failing_since is not None
    traces.down.clear()
    wait_until(lambda: traces.taken == [*range(100)])
    assert relay.health()["traces"].failing_since is None


def test_flush_waits_for_the_needed_sinks(spool, relay_of):
    """A patient flush waits for a needed sink that fails; no flush waits for another one."""
    relay, store, traces = relay_of(spool)
    traces.down.set()
    store.down.set()
    relay.start()
    emit(spool, 1)
    assert not relay.flush(0.2)
    store.down.clear()
    assert relay.flush(10.0)
    wait_until(lambda: relay.health()["traces"].failing_since)
    assert not relay.flush(60.0, patient=False, needed=("traces",))
    begun = time.monotonic()
    assert not relay.flush(0.2, needed=("traces",))
    assert time.monotonic() - begun >= 0.2
    threading.Timer(0.05, traces.down.clear).start()
    assert relay.flush(10.0, needed=("traces",))


def test_a_flush_fails_for_a_needed_sink_that_could_not_be_made(spool, relay_of):
    """Its records wait for the next relay, and no worker is behind."""
    relay, store = relay_of(spool, "store")
    relay.start()
    emit(spool, 1)
    assert not relay.flush(10.0, needed=("traces",))
    assert not relay.flush(10.0, needed=("store", "traces"))
    assert store.taken == [1]
    assert relay.flush(10.0, needed=("store",))
    assert relay.flush(10.0)


def test_a_long_flush_looks_seldom(spool, relay_of, monkeypatch):
    """Each look takes the GIL from the threads that deliver."""
    relay, store = relay_of(spool, "store")
    is_behind, looks = Worker.is_behind, []
    monkeypatch.setattr(Worker, "is_behind", lambda self: looks.append(1) or is_behind(self))
    store.down.set()
    relay.start()
    emit(spool, 1)
    assert not relay.flush(1.0)
    assert len(looks) < 150


def test_exports_are_not_traced(spool, relay_of):
    relay, store = relay_of(spool, "store")
    write, seen = store.write, []

    def look(*batch):
        seen.append(otel_context.get_current())
        write(*batch)

    store.write = look
    relay.start()
    emit(spool, 1)
    assert relay.flush(60.0)
    assert any("suppress_instrumentation" in key and on for key, on in seen[-1].items())


def test_the_store_comes_first_while_a_segment_is_in_memory_only(relay_of):
    """A kill would lose the segment: the Collector must not have what the store can never have."""
    relay, store, traces = relay_of(spool := Spool(None, {}))
    take, opened = store.write, threading.Event()
    store.write = lambda *batch: opened.wait(30) and take(*batch)
    relay.start()
    emit(spool, *range(20))
    time.sleep(0.3)  # several looks of each worker at the spool
    assert traces.taken == []
    opened.set()
    assert relay.flush(30.0)
    wait_until(lambda: traces.taken == store.taken == [*range(20)])
    store.down.set()  # a store that fails delays no telemetry
    emit(spool, 20)
    wait_until(lambda: 20 in traces.taken)


# -- orphans ------------------------------------------------------------------------------------


@needs_spool_files
def test_segments_are_deleted_when_every_sink_has_them(spool, relay_of):
    relay, *_ = relay_of(spool)
    fill(spool, 3)
    relay.drain()
    assert len(segments_in(spool.directory)) == 1


def test_a_segment_stays_for_a_sink_that_only_its_writer_had(tmp_path, relay_of):
    writer = Spool(tmp_path, {"sinks": BOTH})
    emit(writer, 1)
    writer.close()
    relay, store = relay_of(Spool(tmp_path, {"sinks": ["store"]}), "store")
    relay.drain()
    assert store.taken == [1]
    relay.spool.close()
    assert len(segments_in(tmp_path)) == 1
    relay, store, traces = relay_of(Spool(tmp_path, {"sinks": BOTH}))
    relay.drain()
    assert (store.taken, traces.taken) == ([], [1])
    relay.spool.close()
    assert not segments_in(tmp_path)


@pytest.fixture
def orphans(tmp_path):
    """A spool beside forty orphaned segments: more than are adopted at once."""
    if not HAS_FILE_LOCKS:
        pytest.skip("without file locks no segment is orphaned")
    for number in range(40):
        spool = Spool(tmp_path, {"sinks": BOTH})
        emit(spool, number)
        spool.close()
    spool = Spool(tmp_path, {"sinks": BOTH})
    yield spool
    spool.close()


def test_a_drain_delivers_and_deletes_all_orphans(orphans, relay_of):
    relay, *_ = relay_of(orphans)
    assert relay.drain() == {"store": 40, "traces": 40}
    relay.stop(1.0)
    orphans.close()
    assert segments_in(orphans.directory) == []


def test_a_drain_delivers_all_orphans_to_the_store_while_the_collector_is_down(orphans, relay_of):
    relay, store, traces = relay_of(orphans)
    traces.down.set()
    with pytest.raises(SinkUnavailableError):
        relay.drain(retries=1)
    assert sorted(store.taken) == [*range(40)]
    traces.down.clear()
    relay.drain()
    assert sorted(traces.taken) == [*range(40)]


def test_the_threads_deliver_all_orphans_to_the_store_while_the_collector_is_down(
    orphans, relay_of
):
    """A segment that only the telemetry lacks gives its place to one that the store lacks."""
    relay, store, traces = relay_of(orphans)
    traces.down.set()
    relay.start()
    wait_until(lambda: sorted(store.taken) == [*range(40)])
    assert len(orphans.adopted) <= 17
    traces.down.clear()
    wait_until(lambda: sorted(traces.taken) == [*range(40)])
    wait_until(lambda: len(segments_in(orphans.directory)) == 1)  # its own


# -- the limit ----------------------------------------------------------------------------------


@pytest.fixture
def spans():
    return []


@pytest.fixture
def housekeeping(spool, count, spans):
    return Housekeeping(spool, BOTH, lambda: None, count, spans.append)


TELEMETRY_DELETED = "spool full: telemetry let go"


def test_orphans_are_adopted_as_fast_as_they_are_delivered(orphans, count):
    """Not only with each search of the directory."""
    store = Worker(ScriptedSink(), orphans, count, Watermark())
    housekeeping = Housekeeping(orphans, ["store"], lambda: None, count, lambda _: None)
    for _ in range(4):
        housekeeping.step()
        drain(store)
    assert len(store.sink.taken) == 40


@needs_spool_files
def test_at_the_limit_telemetry_is_deleted_first(worker, spool, housekeeping, reasons):
    fill(spool, 6)
    drain(worker)
    spool.supply.limit = 4 * SMALLEST
    housekeeping._enforce_limit()
    assert {*reasons()} == {TELEMETRY_DELETED}
    assert spool.usage() < spool.supply.limit
    assert not spool.supply.full


@needs_spool_files
def test_telemetry_is_deleted_while_an_eighth_is_free(worker, spool, housekeeping, losses, spans):
    """A slow disk may delay the housekeeping for seconds; and new events keep their spans."""
    fill(spool, 32)
    drain(worker)
    spool.supply.limit = spool.usage() + 3 * SMALLEST
    housekeeping._enforce_limit()
    assert losses
    assert 0.8 < spool.usage() / spool.supply.limit <= 0.875
    assert spans == [True]


@needs_spool_files
@pytest.mark.parametrize(("turns", "segments"), [(20, 1), (10, SPARES)])
def test_there_is_always_room_for_the_next_segments(
    worker, spool, housekeeping, losses, turns, segments
):
    """Telemetry is deleted before both spares are used, not only at each measurement."""
    spool.supply.limit = 8 * SMALLEST
    for _ in range(turns):
        housekeeping.step()
        newest = spool.own[-1].number
        while spool.own[-1].number < newest + segments:
            emit(spool, *range(1000))
        drain(worker)
    housekeeping.step()
    assert len(losses) > 10
    assert spool.usage() <= spool.supply.limit


def test_postponed_telemetry_is_deleted_too(orphans, count, reasons):
    store = Worker(ScriptedSink(), orphans, count, Watermark())
    housekeeping = Housekeeping(orphans, BOTH, lambda: None, count, lambda _: None)
    housekeeping.step()
    for _ in range(4):
        drain(store)
        housekeeping.collect()
    assert len(store.sink.taken) == 40
    orphans.supply.limit = 3 * SMALLEST
    for _ in range(5):
        housekeeping._enforce_limit()
    assert orphans.usage() <= orphans.supply.limit
    assert 30 < reasons()[TELEMETRY_DELETED] <= 40
    assert len(reasons()) == 1


@needs_spool_files
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_segment_that_every_sink_has_is_no_loss(spool, housekeeping, losses, when):
    housekeeping.sinks = ["store"]
    fill(spool, 6)
    full = [segment for segment in spool.own if segment.sealed]
    for segment in full if when == "before" else full[:1]:
        segment.delivered_to.add("store")
    spool.sync_sinks = lambda: [segment.delivered_to.add("store") for segment in full]
    spool.supply.limit = 4 * SMALLEST
    housekeeping._enforce_limit()
    assert len(spool.own) < 5
    assert not losses


@needs_spool_files
@pytest.mark.parametrize(("segments", "limit", "full"), [(6, 4, True), (10, 11, False)])
def test_events_drop_their_spans_and_no_undelivered_event_is_deleted(
    spool, housekeeping, losses, spans, segments, limit, full
):
    fill(spool, segments)
    spool.supply.limit = limit * SMALLEST
    housekeeping._enforce_limit()
    assert not losses
    assert spool.supply.full == full
    assert spans == [False]


def test_a_receipt_is_stored_before_flush_can_see_the_cursor(tmp_path, monkeypatch):
    spool = Spool(tmp_path, {"instance": "i", "sinks": ["store"]})
    watermark, seen = Watermark(), []
    original = Segment.advance

    def advance(segment, sink, offset):
        seen.append(watermark.position >= (segment.number, offset))
        original(segment, sink, offset)

    monkeypatch.setattr(Segment, "advance", advance)
    emit(spool, *range(10))
    Relay(spool, [ScriptedSink("store")], watermark).drain()
    spool.close()
    assert seen
    assert all(seen)
