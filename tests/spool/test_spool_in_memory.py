"""What the disk does not take is kept in memory, and moves there when it takes it."""

import errno
import os
import shutil

import pytest

from sidelight.record import frame
from sidelight.spool.directory import segments_in
from sidelight.spool.disk import Disk
from sidelight.spool.segment import SMALL
from sidelight.spool.supply import SMALLEST
from sidelight.spool.writer import Spool


class FullDisk(Disk):
    """One that has no room, while it is full."""

    full = False

    def allocate(self, fd, size):
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().allocate(fd, size)


@pytest.fixture
def disk():
    return FullDisk()


def fill(spool, segments):
    """Use up so many segments, as a caller does."""
    until = spool.own[-1].number + segments
    while spool.own[-1].number < until:
        spool.append(frame(b"x" * 100_000))


def in_memory(spool):
    return sum(segment.path is None for segment in spool.own)


def test_who_leaves_it_to_an_external_relay_moves_one_segment_at_a_time(tmp_path, disk):
    """It is a caller who does it, and has no time: all of them would take him a second."""
    spool = Spool(tmp_path, {"relay": "external"}, disk=disk)
    disk.full = True
    fill(spool, 8)
    assert in_memory(spool) == 8
    disk.full, spool.supply._failed_at = False, 0.0
    left = []
    for _ in range(9):
        fill(spool, 1)
        left.append(in_memory(spool))
    assert left == [7, 6, 5, 4, 3, 2, 1, 0, 0]
    spool.close()


def test_the_directory_removed_under_one_without_a_relay_is_made_again(tmp_path, disk):
    """Who leaves it all to an external relay has no thread to look after it."""
    spool = Spool(tmp_path / "spool", {"relay": "external"}, disk=disk)
    fill(spool, 2)
    shutil.rmtree(tmp_path / "spool")
    fill(spool, 3)
    assert in_memory(spool) == 0
    spool.close()
    assert len(segments_in(tmp_path / "spool")) == 4


def test_one_that_cannot_be_on_the_disk_yet_begins_in_memory(tmp_path):
    losses = []
    (tmp_path / "spool").write_text("in the way")
    spool = Spool(tmp_path / "spool", {}, count=lambda *loss: losses.append(loss))
    spool.append(frame(b"first"))
    with pytest.raises(NotADirectoryError):
        spool.provide()
    (tmp_path / "spool").unlink()
    spool.provide()
    assert in_memory(spool) == 0
    spool.close()
    assert len(segments_in(tmp_path / "spool")) == 1
    assert [reason for reason, _ in losses] == ["kept in memory: Not a directory"]


def test_where_too_many_have_begun_at_the_limit_the_next_begins_in_memory(tmp_path):
    """A crash loop must not fill the disk either."""
    limit, losses = 8 * SMALLEST, []

    def begun():
        return Spool(tmp_path, {}, limit=limit, count=lambda *loss: losses.append(loss))

    spools = [begun() for _ in range(9)]
    assert losses == []
    last = begun()
    assert [reason for reason, _ in losses] == ["kept in memory: the spool is full"]
    last.append(frame(b"x"))
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
