"""The spool: rotation by several threads, spares, adoption, limits."""

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from sidelight.exceptions import SpoolError
from sidelight.record import frame
from sidelight.spool.directory import filesystem, is_remote, prepare_directory, segments_in
from sidelight.spool.header import PAGE
from sidelight.spool.scanner import Scanner
from sidelight.spool.segment import SMALL, Segment
from sidelight.spool.supply import SMALLEST
from sidelight.spool.writer import Spool


def payloads_of(segment):
    scanner = Scanner(segment, PAGE)
    found = []
    while batch := scanner.batch(1000).payloads:
        found += batch
    return found


def write(spool, payload):
    data = frame(payload)
    try:
        spool.write(data)
    except ValueError:
        spool.append(data)


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path / "spool", {"sinks": ["store"]})
    yield spool
    spool.close()


def test_records_survive_rotation_in_order(spool):
    sent = [b"%06d" % i + b"x" * 1000 for i in range(3000)]
    for payload in sent:
        write(spool, payload)
    assert len(spool.own) > 2
    assert [p for segment in spool.own for p in payloads_of(segment)] == sent
    assert [segment.number for segment in spool.own] == list(range(1, len(spool.own) + 1))


def test_threads_rotate_together_and_lose_nothing(spool):
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:

        def emit(thread):
            for i in range(400):
                write(spool, b"%d-%d-" % (thread, i) + b"x" * (3000 * (i % 3)))
                if i % 50 == 0:
                    spool.provide()

        threads = [threading.Thread(target=emit, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    got = [p for segment in spool.own for p in payloads_of(segment)]
    assert len(got) == len(set(got)) == 6 * 400
    numbers = [segment.number for segment in spool.own]
    assert numbers == sorted(set(numbers))


def test_a_signal_handler_may_write_in_the_middle_of_anything(spool):
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
    got = [p for segment in spool.own for p in payloads_of(segment)]
    assert len(got) == 20_000 + len(written)
    assert set(written) <= set(got)


def test_position_is_behind_what_was_written(spool):
    write(spool, b"x")
    number, offset = spool.position()
    assert (number, offset) == (1, spool.own[0].tell())
    while len(spool.own) == 1:
        write(spool, b"y" * 9000)
    assert spool.position() > (1, SMALLEST)


def test_spares_are_used_before_anything_is_allocated(spool):
    spool.provide()
    spares = list(segments_in(spool.directory))
    while len(spool.own) == 1:
        write(spool, b"y" * 9000)
    assert spool.own[1].path in spares


def test_what_a_dead_process_left_is_adopted(tmp_path):
    script = """
        import os, sys
        from pathlib import Path
        from sidelight.record import frame
        from sidelight.spool.writer import Spool
        spool = Spool(Path(sys.argv[1]), {"sinks": ["store"], "instance": "dead"})
        for i in range(10):
            spool.write(frame(b"record-%d" % i))
        print("written", flush=True)
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), tmp_path / "spool"],
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"written\n"
    assert done.returncode == -signal.SIGKILL
    spool = Spool(tmp_path / "spool", {})
    spool.adopt()
    (adopted,) = spool.adopted
    assert adopted.meta["instance"] == "dead"
    assert payloads_of(adopted) == [b"record-%d" % i for i in range(10)]
    spool.delete(adopted)
    spool.close()
    assert not list(segments_in(tmp_path / "spool"))


@pytest.mark.parametrize("holding", [False, True], ids=["deleted", "held for a moment"])
def test_one_that_is_tidied_away_before_it_is_locked_is_made_again(tmp_path, monkeypatch, holding):
    """By a process that takes it for what a dead one has left."""
    directory = tmp_path / "spool"
    directory.mkdir()
    locked, tidied = fcntl.flock, []

    def flock(fd, operation):
        if not tidied:
            tidied.extend(directory.glob(".*.new"))
            with tidied[0].open() as other:
                locked(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                tidied[0].unlink()
                if holding:
                    return locked(fd, operation)
        return locked(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    segment = Segment.create(directory, PAGE * 4, {})
    assert tidied
    assert list(directory.iterdir()) == [segment.path]
    segment.close()


def test_unfinished_allocations_of_the_dead_are_removed(tmp_path):
    directory = tmp_path / "spool"
    prepare_directory(directory)
    (directory / ".0-1.new").write_bytes(b"half")
    spool = Spool(directory, {})
    spool.adopt()
    assert not list(directory.glob(".*.new"))
    spool.close()


def test_at_the_limit_it_says_so_and_blocks_nobody(spool):
    spool.supply.limit = 5 * SMALLEST
    spool.provide()
    with pytest.raises(SpoolError, match="holds its limit"):
        while True:
            write(spool, b"y" * 9000)
    assert spool.usage() <= spool.supply.limit


def test_room_that_was_made_is_used(spool):
    spool.supply.limit = 2 * SMALLEST
    with pytest.raises(SpoolError):
        while True:
            write(spool, b"y" * 9000)
    spool.delete(spool.own[0])
    spool.supply._look_again = 0
    write(spool, b"again")


def test_the_last_segment_stays_while_no_other_can_take_its_place(spool):
    spool.supply.limit = SMALLEST
    with pytest.raises(SpoolError):
        while True:
            write(spool, b"y" * 9000)
    (last,) = spool.own
    assert not last.sealed  # or its reader would delete it, and there were none left
    with pytest.raises(SpoolError):
        write(spool, b"y" * 9000)
    assert spool.position() == (1, last.tell())


def test_the_room_that_is_left_is_used_up_by_smaller_segments(spool):
    spool.supply.limit = 64 * SMALLEST
    while spool.supply._size < 2 * SMALLEST:  # larger ones, as they fill within the second
        write(spool, b"y" * 9000)
        spool.provide()
    assert max(s.size for s in (*spool.own, *spool.supply.spares)) == 2 * SMALLEST
    with pytest.raises(SpoolError):
        while True:
            write(spool, b"y" * 9000)
            spool.provide()
    assert spool.usage() == spool.supply.limit


def test_what_was_lost_is_written_beyond_the_limit(spool):
    spool.supply.limit = SMALLEST
    with pytest.raises(SpoolError):
        while True:
            write(spool, b"y")
    spool.append_beyond_limit(frame(b"the ledger"))
    assert payloads_of(spool.own[-1]) == [b"the ledger"]
    assert spool.usage() < spool.supply.limit + SMALLEST // 8


def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="SIDELIGHT_SPOOL"):
        prepare_directory(tmp_path / "file" / "spool")


def test_without_a_directory_it_is_kept_in_memory():
    spool = Spool(None, {})
    for i in range(300):
        write(spool, b"%d" % i + b"x" * 9000)
    assert len(spool.own) > 1
    assert len([p for segment in spool.own for p in payloads_of(segment)]) == 300
    spool.close()


def test_the_directory_removed_under_it_is_made_again(spool):
    write(spool, b"before")
    for path in spool.directory.iterdir():
        path.unlink()
    spool.directory.rmdir()
    spool.replace_lost_segment()
    write(spool, b"after")
    assert [p for segment in spool.own for p in payloads_of(segment)] == [b"before", b"after"]
    assert list(segments_in(spool.directory)) == [spool.own[-1].path]


def test_a_closed_spool_leaves_only_what_holds_records(tmp_path):
    spool = Spool(tmp_path, {})
    spool.provide()
    spool.close()
    assert not list(tmp_path.iterdir())
    spool = Spool(tmp_path, {})
    spool.write(frame(b"x"))
    spool.close()
    (left,) = tmp_path.iterdir()
    assert left.stat().st_size == SMALL


def test_one_that_was_sealed_for_its_age_holds_no_more_than_was_written(spool):
    write(spool, b"x")
    spool.rotate_aged(0.0)
    aged, current = spool.own
    assert aged.path.stat().st_size == SMALL
    assert current.path.stat().st_size == SMALLEST
    assert not aged.has_lost_file()
    assert payloads_of(aged) == [b"x"]


def test_what_is_written_while_it_closes_stays(tmp_path, monkeypatch):
    """The store has everything; then another thread writes, before the segment is sealed."""
    spool = Spool(tmp_path, {"sinks": ["store"]})
    spool.write(frame(b"before"))
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


def test_a_loop_of_links_is_refused_as_other_places_are(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(SpoolError, match="symbolic links"):
        prepare_directory(tmp_path / "a" / "spool")
    assert not is_remote(tmp_path / "a" / "spool")


def test_filesystem_is_named(tmp_path):
    assert filesystem(tmp_path)
    if os.path.isdir("/proc/self"):  # noqa: PTH112
        assert filesystem(tmp_path.__class__("/proc/self")) == "proc"


def test_a_forked_child_leaves_the_parents_lock_alone(spool):
    write(spool, b"x")
    path = spool.own[0].path
    child = os.fork()
    if child == 0:
        spool.abandon()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert Segment.adopt(path) is None
    write(spool, b"y")
    assert payloads_of(spool.own[0]) == [b"x", b"y"]
