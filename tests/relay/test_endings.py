"""What a relay tells the store of other processes: their records in order, life and end."""

import shutil
import time

import pytest
from tests.relay.test_relay import ScriptedSink, emit
from tests.support.platforms import needs_spool_files, needs_tmpfs

from sidelight.emission import Watermark
from sidelight.relay.endings import Endings
from sidelight.relay.worker import Worker
from sidelight.spool import PAGE, Health, Spool, hot_directory, segments_in

pytestmark = needs_spool_files


class NotingSink(ScriptedSink):
    """Remembers also what it is told of processes."""

    def __init__(self):
        super().__init__()
        self.alive = []
        self.ended = []
        self.on_write = lambda: None

    def write(self, records, writer):
        super().write(records, writer)
        self.on_write()

    def note_alive(self, writer, until):
        self.alive.append((writer["instance"], until))

    def note_end(self, writer):
        self.ended.append(writer["instance"])


def fill(spool):
    """Emit until the current segment is full and handed over."""
    full = spool.own[-1].number
    while spool.own[-1].number == full:
        emit(spool, *range(1000))


def die(spool):
    """Let go of everything, as the kernel does for a process that is killed."""
    spool.supply.delete_spares()
    for segment in spool.own:
        segment.close()
    spool.own.clear()


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def spools(directory):
    """Open spools that are closed in the end."""
    opened = []

    def spool(instance, *, sinks=("store",), **options):
        meta = {"sinks": sinks, "instance": instance}
        if instance != "relay":
            meta["relay"] = "external"
        opened.append(Spool(directory, meta, **options))
        return opened[-1]

    yield spool
    for each in opened:
        each.close()


@pytest.fixture
def relaying(spools):
    """Make workers of relays that follow and adopt."""

    def make():
        spool = spools("relay")
        spool.adopt()
        return Worker(NotingSink(), spool, lambda *_: None, Watermark())

    return make


def drain(worker):
    """Do what the worker and the housekeeping do, in turns."""
    is_left = True
    while is_left:
        worker.spool.discard(worker.spool.delivered(["store"]))
        worker.spool.adopt()
        is_left = worker.step(retries=1)


# -- the end -----------------------------------------------------------------------------------


@pytest.fixture
def hot(directory):
    directory.mkdir(mode=0o700)
    hot = hot_directory("/dev/shm", directory)
    yield hot
    shutil.rmtree(hot, ignore_errors=True)


@needs_tmpfs
def test_a_process_lives_whose_newer_segment_is_not_on_the_tmpfs(
    spools, relaying, hot, directory, monkeypatch
):
    """Where the tmpfs has no room, the next segment lies on the disk."""
    monkeypatch.setattr("sidelight.spool.supply._HOT_LIMIT", 1024 * 1024 + 1)
    writer = spools("writer", hot=hot)
    fill(writer)
    assert [path.parent for path in segments_in(directory)][:2] == [hot, directory]
    worker = relaying()
    while worker.step(retries=1):  # the housekeeping, which would copy the segment, is late
        pass
    assert len(worker.sink.taken) >= 1000
    assert worker.sink.ended == []
    writer.close()
    drain(worker)
    assert worker.sink.ended == ["writer"]


@needs_tmpfs
def test_the_copy_of_a_hot_segment_is_no_other_segment(spools, relaying, hot):
    """The housekeeping may replace a hot segment by its copy while a worker reads it."""
    writer = spools("writer", hot=hot)
    emit(writer, 1)
    die(writer)
    worker = relaying()
    (segment,) = (each for each in worker.spool.adopted if each.has_more(PAGE))
    worker.spool.copy_hot()
    assert segment not in worker.spool.adopted
    assert Endings(worker.sink, worker.spool.adopted).note_end(segment, Health())
    assert worker.sink.ended == ["writer"]


@pytest.mark.parametrize("by", ["one relay", "the next relay"])
def test_the_end_is_noted_although_telemetry_lacks_every_segment(spools, relaying, by):
    """The segments stay until the Collector answers, and the calls are abandoned before."""
    writer = spools("writer", sinks=["store", "traces"])
    fill(writer)
    fill(writer)
    die(writer)
    worker = relaying()
    assert len(worker.spool.adopted) == 3
    if by == "one relay":
        drain(worker)
    else:
        for segment in worker.spool.adopted:
            segment.advance("store", segment.end_of_frames())
        worker.spool.adopted.close()
        worker = relaying()
        drain(worker)
    assert worker.sink.ended == ["writer"]


# -- the life ------------------------------------------------------------------------------------


def test_a_process_is_noted_alive_until_the_look_that_found_nothing(spools, relaying, monkeypatch):
    """What the process writes after the read may still be missing."""
    monkeypatch.setattr("sidelight.relay.endings._LOOK", 0.0)
    writer = spools("writer")
    emit(writer, 1)
    worker = relaying()
    worker.step()
    assert worker.sink.alive == []
    began, later = time.time_ns(), []
    segments = [each for each in worker.spool.adopted if each.has_more(PAGE)]
    read = worker._sources.read

    def read_and_be_late(segment, *arguments):
        reading = read(segment, *arguments)
        if segment in segments and not later:
            later.append(time.time_ns())
            emit(writer, 2)
        return reading

    monkeypatch.setattr(worker._sources, "read", read_and_be_late)
    worker.step()
    ((instance, until),) = worker.sink.alive
    assert instance == "writer"
    assert began < until <= later[0]


@pytest.mark.parametrize("reader", ["this relay", "another relay"])
def test_a_process_is_not_noted_alive_while_its_other_segments_wait(
    spools, relaying, monkeypatch, reader
):
    """They are full, handed over, and read one batch per step, perhaps by another relay."""
    monkeypatch.setattr("sidelight.relay.endings._LOOK", 0.0)
    writer = spools("writer")
    for _ in range(3):
        fill(writer)
    worker = others = relaying()
    if reader == "another relay":
        writer.rotate(writer.own[-1])
        emit(writer, 1)
        worker = relaying()
    emit(writer, "newest")
    for _ in range(3):
        worker.step()
    assert ("newest" in worker.sink.taken) is (reader == "another relay")
    assert worker.sink.alive == []
    drain(others)
    drain(worker)
    worker.step()
    assert {instance for instance, _ in (*worker.sink.alive, *others.sink.alive)} == {"writer"}


def test_the_newest_segment_is_found_although_no_search_has_seen_it(spools, relaying):
    writer = spools("writer")
    emit(writer, 1)
    worker = relaying()
    worker.step()
    writer.supply.delete_spares()
    writer.rotate(writer.own[-1])
    emit(writer, 2)
    for _ in range(2):
        worker.step()
    assert (worker.sink.taken, worker.sink.alive) == ([1], [])


# -- the order within a process ------------------------------------------------------------------


def test_a_living_process_is_read_in_order_and_waits_for_no_other(spools, relaying):
    """The end of a call must not come before its start, nor wait for a dead process's backlog."""
    dead = spools("dead")
    for _ in range(3):
        fill(dead)
    die(dead)
    living, quick = spools("living"), spools("quick")
    emit(quick, "quick")
    emit(living, "start")
    for _ in range(2):
        fill(living)
    emit(living, "end")
    worker = relaying()
    worker.step()
    assert {"quick", "start"} <= {*worker.sink.taken}
    assert "end" not in worker.sink.taken
    drain(worker)
    assert worker.sink.taken.count("start") == worker.sink.taken.count("end") == 1
    assert worker.sink.taken[-1] != "start"


def test_two_live_segments_of_a_process_are_read_in_order(spools, relaying, monkeypatch):
    """The process has just left the first one, and no search has seen that."""
    monkeypatch.setattr("sidelight.relay.worker._STORE_BATCH", 10)
    monkeypatch.setattr("sidelight.relay.reading.STRETCH", 10)
    writer = spools("writer")
    worker = relaying()
    writer.supply.spares.append(writer.supply.create(1024 * 1024))
    worker.spool.adopt()
    emit(writer, *range(25))
    writer.rotate(writer.own[-1])
    emit(writer, "newest")
    while worker.step():
        pass
    assert worker.sink.taken == [*range(25), "newest"]
