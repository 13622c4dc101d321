"""A descriptor whose number was closed by other code and opened again is another file."""

import contextlib
import errno
import os

import pytest
from tests.support.platforms import needs_spool_files

from sidelight.exceptions import SpoolError
from sidelight.record import frame
from sidelight.spool import PAGE, Entry, Quarantine, Segment, Spool, system
from sidelight.store import sqlite

pytestmark = needs_spool_files

SIZE = 64 * 1024
ENTRY = Entry(
    kind="record",
    reason="refused",
    problem="",
    refused_by="store",
    sinks=("store",),
    at=0,
    writer={},
    segment="s",
    offset=None,
    payload=b"x",
)


@pytest.fixture
def reused(tmp_path):
    """A segment whose number other code has closed, and the segment that has the number now."""
    old = Segment.create(tmp_path, SIZE, {"sinks": ["store"]})
    old.write(frame(b"x" * 100))
    number = int(old.fd)
    os.close(number)
    new = Segment.create(tmp_path, SIZE, {"sinks": ["store"]})
    assert int(new.fd) == number
    return old, new


def test_no_cursor_is_written_into_the_newer_segment(reused):
    old, new = reused
    before = new.path.read_bytes()[:PAGE]
    for change in (
        lambda: old.advance("store", old.tell()),
        lambda: old.disk.truncate(old.fd, PAGE),
        lambda: old.disk.sync(old.fd),
    ):
        with pytest.raises(OSError, match="closed the descriptor"):
            change()
    assert new.path.read_bytes()[:PAGE] == before
    assert new.path.stat().st_size == SIZE


def test_the_newer_segment_stays_open_and_locked(reused):
    old, new = reused
    assert old.has_lost_file()
    assert not new.has_lost_file()
    old.close()
    new.write(frame(b"new"))
    assert new.has_descriptor()
    assert Segment.adopt(new.path) is None


@pytest.mark.parametrize("what", ["a directory", "a write-ahead log", "a quarantined record"])
def test_a_long_sync_closes_no_other_file(what, tmp_path, monkeypatch):
    """Other code closes all descriptors during a sync, and opens its own file."""
    (tmp_path / "store-wal").touch()
    files = []

    def slow_sync(fd):
        os.close(fd)
        files.append((tmp_path / f"business-{len(files)}").open("wb"))
        assert files[-1].fileno() == fd

    for name in ("sync", "sync_data"):
        monkeypatch.setattr(system, name, slow_sync)
    monkeypatch.setattr(sqlite, "sync", slow_sync)
    with contextlib.suppress(OSError):
        if what == "a directory":
            system.sync_directory(tmp_path)
        elif what == "a write-ahead log":
            sqlite.sync_wal(tmp_path / "store")
        else:
            Quarantine(tmp_path).keep(ENTRY)
    assert files
    for file in files:
        file.close()  # fails where the descriptor is closed


class _FakedOs:
    """What pyfakefs puts in the place of `os`: `open` numbers its own files."""

    def __init__(self, number):
        self.number = number

    def __getattr__(self, name):
        return getattr(os, name)

    def open(self, *_args):
        return self.number

    def fstat(self, *_args):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    stat = close = fstat


def test_a_replaced_file_system_opens_no_file_of_the_caller(tmp_path, monkeypatch):
    """As pyfakefs replaces it, without sidelight's plugin for pytest."""
    counted = []
    own = tmp_path / "own"
    own.write_bytes(b"of the caller")
    spool = Spool(tmp_path / "spool", {}, count=lambda *each: counted.append(each))
    with own.open("r+b") as file, monkeypatch.context() as patched:
        for module in ("descriptor", "disk", "locks", "system"):
            patched.setattr(f"sidelight.spool.{module}.os", _FakedOs(file.fileno()))
        spool.append(b"before")
        spool.replace_lost_segment()
        assert not counted
        with contextlib.suppress(OSError):
            spool.provide()
        spool.rotate(spool.own[-1])
        spool.append(b"inside")
        with pytest.raises(SpoolError, match="has no file"):
            spool.sync()
        assert "pyfakefs has replaced the file system" in str(counted)
    assert own.read_bytes() == b"of the caller"
    spool.provide()
    spool.sync()
    spool.close()
    assert any(b"before" in each.read_bytes() for each in (tmp_path / "spool").glob("*.segment"))
    assert any(b"inside" in each.read_bytes() for each in (tmp_path / "spool").glob("*.segment"))
