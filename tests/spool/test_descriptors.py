"""A descriptor whose number was closed by other code and opened again is another file."""

import contextlib
import os

import pytest
from tests.support.platforms import needs_spool_files

from sidelight.record import frame
from sidelight.spool import PAGE, Entry, Quarantine, Segment, system
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
