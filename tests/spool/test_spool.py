"""The spool: rotation by several threads, spares, the limit, memory in place of a disk, the end."""

import contextlib
import errno
import fcntl
import functools
import os
import shutil
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.platforms import needs_spool_files
from tests.support.switching import all_at_once

from sidelight.exceptions import SpoolError
from sidelight.host import IS_LINUX, monotonic
from sidelight.record import frame
from sidelight.spool import (
    PAGE,
    SMALLEST,
    SPARES,
    Scanner,
    Segment,
    Spool,
    filesystem,
    prepare_directory,
    segments_in,
)
from sidelight.spool.directory import bytes_in, is_remote
from sidelight.spool.disk import Disk
from sidelight.spool.segment import SMALL
from sidelight.spool.supply import IDLE

pytestmark = needs_spool_files


def payloads_of(segment):
    scanner = Scanner(segment, PAGE)
    found = []
    while batch := scanner.batch(1000).payloads:
        found += batch
    return found


def all_payloads(spool):
    return [payload for segment in spool.own for payload in payloads_of(segment)]


def write(spool, payload):
    data = frame(payload)
    try:
        spool.write(data)
    except ValueError:
        spool.append(data)


def fill(spool, segments=1):
    """Use up so many segments."""
    until = spool.own[-1].number + segments
    while spool.own[-1].number < until:
        write(spool, b"y" * 9000)


def fill_to_the_limit(spool, size=9000, meanwhile=lambda: None):
    with pytest.raises(SpoolError, match="holds its limit"):
        while True:
            write(spool, b"y" * size)
            meanwhile()


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path / "spool", {"sinks": ["store"]})
    yield spool
    spool.close()


# -- writing ------------------------------------------------------------------------------------


def test_records_keep_their_order_in_every_rotation(spool):
    sent = [b"%06d" % i + b"x" * 1000 for i in range(3000)]
    for payload in sent:
        write(spool, payload)
    assert len(spool.own) > 2
    assert all_payloads(spool) == sent
    assert [segment.number for segment in spool.own] == list(range(1, len(spool.own) + 1))


def test_threads_rotate_together_and_lose_nothing(spool):
    def emit(thread):
        for i in range(400):
            write(spool, b"%d-%d-" % (thread, i) + b"x" * (3000 * (i % 3)))
            if i % 50 == 0:
                spool.provide()

    all_at_once(emit, range(6), every=1e-5)
    got = all_payloads(spool)
    assert len(got) == len(set(got)) == 6 * 400
    numbers = [segment.number for segment in spool.own]
    assert numbers == sorted(set(numbers))


def test_a_signal_handler_may_write_at_any_moment(spool):
    written = []

    def handler(*_):
        payload = b"signal-%d" % len(written)
        written.append(payload)
        write(spool, payload)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        for i in range(20_000):
            write(spool, b"main-%d" % i + b"x" * 400)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    got = all_payloads(spool)
    assert len(got) == 20_000 + len(written)
    assert set(written) <= set(got)


def test_the_position_is_behind_what_was_written(spool):
    write(spool, b"x")
    assert spool.position() == (1, spool.own[0].tell())
    fill(spool)
    assert spool.position() > (1, SMALLEST)


def make_busy(spool):
    """Write as much as makes a process busy."""
    while spool.own[-1].tell() < 80_000:
        write(spool, b"y" * 9000)


def test_spares_are_used_before_anything_is_allocated(spool):
    make_busy(spool)
    spool.provide()
    spares = segments_in(spool.directory)
    fill(spool)
    assert spool.own[1].path in spares


def test_only_a_busy_process_has_spares(spool, monkeypatch):
    now = monotonic()
    monkeypatch.setattr("sidelight.spool.supply.monotonic", lambda: now)
    write(spool, b"x")
    spool.provide()
    assert len(segments_in(spool.directory)) == 1
    make_busy(spool)
    spool.provide()
    assert len(segments_in(spool.directory)) == 1 + SPARES
    now += 61
    spool.provide()
    assert len(segments_in(spool.directory)) == 1
    assert spool.supply.take_for_child() is None
    spool.provide()  # a process that forks keeps one for its next child
    assert len(segments_in(spool.directory)) == 2


@pytest.mark.parametrize("holding", [False, True], ids=["deleted", "held for a moment"])
def test_a_file_that_is_deleted_before_it_is_locked_is_made_again(tmp_path, monkeypatch, holding):
    """Another process takes it for the unfinished file of a dead one."""
    locked, deleted = fcntl.flock, []

    def flock(fd, operation):
        if not deleted:
            deleted.extend(tmp_path.glob(".*.new"))
            with deleted[0].open() as other:
                locked(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                deleted[0].unlink()
                if holding:
                    return locked(fd, operation)
        return locked(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    segment = Segment.create(tmp_path, PAGE * 4, {})
    assert deleted
    assert [each for each in tmp_path.iterdir() if each.suffix != ".lock"] == [segment.path]
    segment.close()


# -- the limit ----------------------------------------------------------------------------------


def test_at_the_limit_a_write_raises_and_the_room_that_is_made_is_used(spool):
    spool.supply.limit = 5 * SMALLEST
    spool.provide()
    fill_to_the_limit(spool)
    assert spool.usage() <= spool.supply.limit
    spool.delete(spool.own[0])
    spool.supply._look_again = 0
    write(spool, b"again")


def test_the_last_segment_stays_while_there_is_no_successor(spool):
    spool.supply.limit = SMALLEST
    fill_to_the_limit(spool)
    (last,) = spool.own
    assert not last.sealed  # else its reader would delete it
    with pytest.raises(SpoolError):
        write(spool, b"y" * 9000)
    assert spool.position() == (1, last.tell())


def test_smaller_segments_use_up_the_room_that_is_left(spool):
    spool.supply.limit = 64 * SMALLEST
    while spool.supply._size < 2 * SMALLEST:  # larger ones, as they fill within a second
        write(spool, b"y" * 9000)
        spool.provide()
    assert max(s.size for s in (*spool.own, *spool.supply.spares)) == 2 * SMALLEST
    fill_to_the_limit(spool, meanwhile=spool.provide)
    assert spool.usage() == spool.supply.limit


def test_the_last_ledger_is_written_beyond_the_limit(spool):
    spool.supply.limit = SMALLEST
    fill_to_the_limit(spool, 1)
    spool.append_beyond_limit(frame(b"the ledger"))
    assert payloads_of(spool.own[-1]) == [b"the ledger"]
    assert spool.usage() < spool.supply.limit + SMALLEST // 8


# -- directories --------------------------------------------------------------------------------


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="SIDELIGHT_SPOOL"):
        prepare_directory(tmp_path / "file" / "spool")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(SpoolError, match="symbolic links"):
        prepare_directory(tmp_path / "a" / "spool")
    assert not is_remote(tmp_path / "a" / "spool")


@pytest.mark.skipif(not IS_LINUX, reason="without /proc no filesystem is known")
def test_the_filesystem_is_named(tmp_path):
    assert filesystem(tmp_path)
    assert filesystem(tmp_path / "/proc/self") in {"proc", ""}


def test_a_directory_that_was_removed_is_made_again(spool):
    write(spool, b"before")
    shutil.rmtree(spool.directory)
    spool.replace_lost_segment()
    write(spool, b"after")
    assert all_payloads(spool) == [b"before", b"after"]
    assert segments_in(spool.directory) == [spool.own[-1].path]


def test_each_segment_follows_the_path_of_a_spool_that_is_moved_again_and_again(spool):
    for n in range(3):
        write(spool, b"%d" % n)
        spool.provide()
        spool.directory.rename(spool.directory.with_name(f"moved-{n}"))
        spool.replace_lost_segment()
        spool.provide()
    assert all_payloads(spool) == [b"0", b"1", b"2"]
    files = [segment.path for segment in (*spool.own, *spool.supply.spares)]
    assert sorted(files) == segments_in(spool.directory)


# -- memory in place of a disk ------------------------------------------------------------------


class FullDisk(Disk):
    """Has no room while it is full."""

    full = False

    def allocate(self, fd, size):
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().allocate(fd, size)


@pytest.fixture
def losses():
    return []


@pytest.fixture
def external(tmp_path, losses):
    """A spool that is left to an external relay: no thread looks after it."""
    return Spool(
        tmp_path / "spool",
        {"relay": "external"},
        disk=FullDisk(),
        count=lambda *loss: losses.append(loss),
    )


def in_memory(spool):
    return sum(segment.path is None for segment in spool.own)


def test_without_a_directory_records_are_kept_in_memory():
    spool = Spool(None, {})
    fill(spool, 2)
    write(spool, b"x")
    assert payloads_of(spool.own[-1])[-1] == b"x"
    assert len(spool.own) == in_memory(spool) == 3
    spool.close()


def test_without_a_relay_a_rotation_moves_one_segment_from_memory_to_the_disk(external):
    """A caller pays for it: all segments at once would take a second."""
    external.disk.full = True
    fill(external, 8)
    assert in_memory(external) == 8
    external.disk.full, external.supply._failed_at = False, 0.0
    left = []
    for _ in range(9):
        fill(external)
        left.append(in_memory(external))
    assert left == [7, 6, 5, 4, 3, 2, 1, 0, 0]
    external.close()


def test_without_a_relay_a_directory_that_was_removed_is_made_again(external):
    fill(external, 2)
    shutil.rmtree(external.directory)
    fill(external, 3)
    assert in_memory(external) == 0
    external.close()
    assert len(segments_in(external.directory)) == 4


def test_a_spool_that_cannot_be_on_the_disk_yet_begins_in_memory(tmp_path, losses):
    directory = tmp_path / "spool"
    directory.write_text("in the way")
    spool = Spool(directory, {}, count=lambda *loss: losses.append(loss))
    write(spool, b"first")
    with pytest.raises(NotADirectoryError):
        spool.provide()
    directory.unlink()
    spool.provide()
    assert in_memory(spool) == 0
    spool.close()
    assert len(segments_in(directory)) == 1
    assert [reason for reason, _ in losses] == ["kept in memory: Not a directory"]


class MeetingDisk(Disk):
    """Lets those that allocate go on when all of them have looked for room."""

    def __init__(self, parties):
        super().__init__()
        self.barrier = threading.Barrier(parties)

    def allocate(self, fd, size):
        with contextlib.suppress(threading.BrokenBarrierError):
            self.barrier.wait(60)
        super().allocate(fd, size)


def test_the_last_room_is_given_once(tmp_path):
    """Three relays and a caller find room for one segment at the same time."""
    limit = 8 * SMALLEST
    spools = [Spool(tmp_path, {}, limit=limit) for _ in range(4)]
    Segment.create(tmp_path, limit - 5 * SMALLEST, {}).close()
    disk = MeetingDisk(len(spools))
    for spool in spools:
        spool.supply._disk = disk
        spool.supply._busy_until = float("inf")
    calls = [spool.provide for spool in spools[1:]]
    calls.append(functools.partial(spools[0].supply.take, spools[0].own))
    with ThreadPoolExecutor(len(calls)) as pool:
        *_, taken = [pool.submit(call) for call in calls]
    assert bytes_in(tmp_path) <= limit
    assert isinstance(taken.exception(), SpoolError | None)
    for spool in spools:
        spool.close()


def test_a_caller_loses_nothing_while_the_relay_allocates_the_last_room(tmp_path):
    limit = 8 * SMALLEST
    spool = Spool(tmp_path, {}, limit=limit)
    Segment.create(tmp_path, limit - 2 * SMALLEST, {}).close()
    spool.supply._disk = disk = MeetingDisk(2)
    spool.supply._busy_until = float("inf")
    with ThreadPoolExecutor(1) as pool:
        provided = pool.submit(spool.provide)
        taken = spool.supply.take(spool.own)
        provided.result()
    assert disk.barrier.broken or taken.path is None or not spool.supply.spares
    assert bytes_in(tmp_path) <= limit
    taken.close()
    spool.close()


def test_a_crash_loop_at_the_limit_begins_in_memory(tmp_path, losses):
    limit = 8 * SMALLEST

    def begun():
        return Spool(tmp_path, {}, limit=limit, count=lambda *loss: losses.append(loss))

    spools = [begun() for _ in range(9)]
    assert losses == []
    last = begun()
    assert Counter(losses) == {
        ("kept in memory: the spool is full", str(last.supply.error("the spool is full"))): 1
    }
    write(last, b"x")
    assert last.usage() == limit + limit // 8
    for spool in spools[2:]:
        spool.close()
    last.supply._look_again = 0.0
    last.provide()
    assert in_memory(last) == 0
    for spool in (*spools[:2], last):
        spool.close()
    (left,) = segments_in(tmp_path)
    assert left.stat().st_size == SMALL


# -- the end ------------------------------------------------------------------------------------


def test_a_closed_spool_leaves_only_what_holds_records(tmp_path):
    spool = Spool(tmp_path, {})
    spool.provide()
    spool.close()
    assert not [*tmp_path.iterdir()]
    spool = Spool(tmp_path, {})
    write(spool, b"x")
    spool.close()
    (left,) = [each for each in tmp_path.iterdir() if each.suffix != ".lock"]
    assert left.stat().st_size == SMALL


def test_an_idle_process_gives_its_room_back(spool):
    write(spool, b"x")
    spool.rotate_aged(0.0)
    aged, current = spool.own
    assert (aged.path.stat().st_size, current.path.stat().st_size) == (SMALL, IDLE)
    assert not aged.has_lost_file()
    assert payloads_of(aged) == [b"x"]


def test_a_record_that_is_written_while_the_spool_closes_stays(tmp_path, monkeypatch):
    """Every sink has everything; then another thread writes, before the segment is sealed."""
    spool = Spool(tmp_path, {"sinks": ["store"]})
    write(spool, b"before")
    spool.own[0].advance("store", spool.own[0].tell())
    seal, wrote = Segment.seal, []

    def late(segment):
        if not wrote:
            wrote.append(segment.write(frame(b"meanwhile")))
        seal(segment)

    monkeypatch.setattr(Segment, "seal", late)
    spool.close()
    (path,) = segments_in(tmp_path)
    left = Segment.adopt(path)
    assert payloads_of(left) == [b"before", b"meanwhile"]
    left.close()
