"""A SQLite file that a symbolic link names: what lies beside it lies beside the link's target."""

import os
import sqlite3
from pathlib import Path

import pytest
from tests.support.platforms import needs_spool_files

from sidelight.store import StoreSink, sqlite
from sidelight.store.write_lock import WriteLock
from sidelight.transactions.outbox.position import (
    Position,
    PositionFile,
    position_beside,
    read_position,
)
from sidelight.transactions.outbox.sqlite import SqliteOutbox

pytestmark = needs_spool_files


@pytest.fixture
def link(tmp_path):
    """A link in a directory of its own, to a file that is there."""
    for each in ("current", "shared"):
        (tmp_path / each).mkdir()
    (tmp_path / "shared" / "events.db").touch()
    (tmp_path / "current" / "events.db").symlink_to("../shared/events.db")
    return tmp_path / "current" / "events.db"


def test_the_log_is_synced_and_watched(link, monkeypatch):
    synced = []
    monkeypatch.setattr(sqlite, "sync", lambda fd: synced.append(fd.path))
    sink = StoreSink(f"sqlite:///{link}")
    connection = sink._opened(create=True)
    sink.sync()
    log = link.resolve().with_name("events.db-wal")
    assert synced == [log]
    log.unlink()
    with pytest.raises(OSError, match="was replaced"):
        sink.sync()
    with pytest.raises(sqlite.DatabaseError, match="was replaced"):
        connection.check_file()
    sink.close()


def test_one_relay_at_a_time_writes(link):
    with WriteLock(link), pytest.raises(TimeoutError), WriteLock(link.resolve()):
        pass


def test_an_outbox_is_moved_and_its_position_found_by_each_name(link):
    app = sqlite3.connect(link, isolation_level=None)
    app.execute("PRAGMA journal_mode = WAL")
    app.execute(
        "CREATE TABLE sidelight_outbox (position INTEGER, event_id TEXT, record BLOB,"
        " PRIMARY KEY (position, event_id)) WITHOUT ROWID"
    )
    outbox, moved = SqliteOutbox(link), []
    for n in (1, 2, 3):
        app.execute("INSERT INTO sidelight_outbox VALUES (?, ?, ?)", (n, f"{n:036d}", b"r"))
        outbox.move(moved.extend, 100)
        assert len(moved) == n
    for name in (link, link.resolve()):
        assert read_position(os.fspath(name)).number == 3
    outbox.close()
    app.close()


def test_a_position_that_was_replaced_is_read_anew(link, monkeypatch):
    monkeypatch.setattr("sidelight.transactions.outbox.position._LOOK_AGAIN", 0.0)

    def note(number):
        file = PositionFile(os.fspath(link))
        with file.locked():
            file.write(Position(number, f"{number:036d}"))

    note(5)
    assert position_beside(os.fspath(link)).number == 5
    Path(f"{link.resolve()}-outbox").rename(link.with_name("old"))
    note(9)
    assert position_beside(os.fspath(link)).number == 9
