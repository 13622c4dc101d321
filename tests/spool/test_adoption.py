"""Adoption: which segments of other processes a relay opens, and how many at once."""

import contextlib
import signal
import subprocess
import sys
import textwrap

import pytest
from tests.spool.test_spool import payloads_of, write
from tests.support.children import in_a_forked_child
from tests.support.platforms import needs_spool_files

from sidelight.relay import housekeeping
from sidelight.relay.housekeeping import Housekeeping
from sidelight.spool import Spool, prepare_directory, segments_in
from sidelight.spool.disk import Disk

pytestmark = needs_spool_files

BOTH = ["store", "traces"]


def live(directory, **meta):
    spool = Spool(directory, {"sinks": BOTH, **meta})
    write(spool, b"a record")
    return spool


def leave_orphans(directory, number, **meta):
    for spool in [live(directory, **meta) for _ in range(number)]:
        spool.close()


@pytest.fixture
def reader(tmp_path):
    spool = Spool(tmp_path, {"sinks": BOTH})
    yield spool
    spool.close()


def deliver_to_store(reader):
    for segment in reader.adopted:
        segment.delivered_to.add("store")
    reader.adopted.release(BOTH)


def postponed(reader):
    """Segments that the store has and the traces lack, of more than are open at once."""
    leave_orphans(reader.directory, 20)
    reader.adopt()
    segments = [*reader.adopted]
    deliver_to_store(reader)
    return segments


def test_what_a_killed_process_has_written_is_adopted(tmp_path):
    script = """
        import os, sys
        from pathlib import Path
        from sidelight.record import frame
        from sidelight.spool import Spool
        spool = Spool(Path(sys.argv[1]), {"sinks": ["store"], "instance": "dead"})
        for i in range(10):
            spool.write(frame(b"record-%d" % i))
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    spool = Spool(tmp_path, {})
    spool.adopt()
    (adopted,) = spool.adopted
    assert adopted.meta["instance"] == "dead"
    assert payloads_of(adopted) == [b"record-%d" % i for i in range(10)]
    spool.delete(adopted)
    spool.close()
    assert not segments_in(tmp_path)


def test_unfinished_files_of_dead_processes_are_removed(tmp_path):
    prepare_directory(tmp_path)
    (tmp_path / ".0-1.new").write_bytes(b"half")
    spool = Spool(tmp_path, {})
    spool.adopt()
    assert not [*tmp_path.glob(".*.new")]
    spool.close()


@pytest.mark.parametrize("relay", ["inside", "external"])
def test_at_most_16_orphans_are_open_at_once(reader, relay):
    leave_orphans(reader.directory, 40, relay=relay)
    reader.adopt()
    assert len(reader.adopted) == 16


def test_every_live_segment_that_wants_an_external_relay_is_followed(reader):
    leave_orphans(reader.directory, 20)
    spools = [live(reader.directory, relay="external") for _ in range(5)]
    spools.append(live(reader.directory))
    reader.adopt()
    assert sum(not segment.sealed for segment in reader.adopted) == 5
    for spool in spools:
        spool.close()


class _CountingDisk(Disk):
    """The disk; notes which segments are opened."""

    def __init__(self):
        super().__init__()
        self.opened = []

    def open(self, path, *, writable):
        self.opened.append(path)
        return super().open(path, writable=writable)


def test_a_search_opens_few_segments_of_living_processes(tmp_path):
    """Several hundred processes would open one another's files all the time."""
    spools = [live(tmp_path) for _ in range(100)]
    disk = _CountingDisk()
    with contextlib.closing(Spool(tmp_path, {"sinks": BOTH}, disk=disk)) as reader:
        reader.adopt()
        assert len(disk.opened) >= 100  # new ones are all looked at
        disk.opened.clear()
        reader.adopt()
        reader.adopt()
        assert len(disk.opened) == len(set(disk.opened)) == 64
        spools[50].close()
        for _ in range(8):
            reader.adopt()
        assert [segment.sealed for segment in reader.adopted] == [True]
    for spool in spools:
        spool.close()


def test_a_search_that_takes_long_is_rare(reader, monkeypatch):
    now, searched = [1000.0], []
    monkeypatch.setattr(housekeeping, "monotonic", lambda: now[0])

    def search():
        searched.append(now[0])
        now[0] += 0.1

    monkeypatch.setattr(reader, "adopt", search)
    keeper = Housekeeping(reader, BOTH, lambda: None, lambda *_: None, lambda _: None)
    while now[0] < 1020.0:
        keeper.step()
        now[0] += 0.1
    assert 4 <= len(searched) <= 5


def test_a_live_segment_takes_no_place(reader):
    leave_orphans(reader.directory, 16)
    alive = live(reader.directory)
    reader.adopt()
    before = [*reader.adopted]
    deliver_to_store(reader)
    assert [*reader.adopted] == before
    alive.close()


def test_a_segment_that_one_sink_has_is_postponed_and_opened_again(reader):
    leave_orphans(reader.directory, 40)
    reader.adopt()
    seen = []
    while new := [segment.path for segment in reader.adopted if not segment.delivered_to]:
        seen += new
        deliver_to_store(reader)
        reader.adopted.fill()
    assert len(set(seen)) == len(seen) == 40
    while reader.adopted:
        for segment in tuple(reader.adopted):
            assert segment.delivered_to == {"store"}
            assert payloads_of(segment) == [b"a record"]
            reader.delete(segment)
        reader.adopted.fill()
    assert not [path for path in seen if path.exists()]


def test_a_postponed_segment_that_is_still_read_comes_back_as_the_same_object(reader):
    """A second one could not be opened, because this process is its one reader."""
    segments = postponed(reader)
    reader.adopted.fill()
    for segment in tuple(reader.adopted):
        if not segment.delivered_to:
            reader.delete(segment)
    reader.adopted.fill()
    assert set(reader.adopted) == set(segments)


@pytest.mark.parametrize("close", ["close", "abandon"])
def test_a_closed_spool_and_a_forked_child_hold_no_adopted_segment(tmp_path, close):
    """Else the locks of the parent would outlive it in the child."""
    spool = Spool(tmp_path, {"sinks": BOTH})
    segments = postponed(spool)
    getattr(spool, close)()
    assert {segment.fd for segment in segments} == {-1}


def test_a_forked_child_leaves_the_parents_lock_alone(tmp_path):
    spool, other = live(tmp_path), Spool(tmp_path, {})
    in_a_forked_child(spool.abandon)
    other.adopt()
    assert not other.adopted
    write(spool, b"y")
    assert payloads_of(spool.own[0]) == [b"a record", b"y"]
    for each in (spool, other):
        each.close()
