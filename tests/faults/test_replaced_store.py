"""Row 24: the file of a SQLite store is replaced while a program emits, as restore tools do."""

import contextlib
import os
import sqlite3

import pytest
from tests.support.balance import balance
from tests.support.emitting import Order
from tests.support.programs import caught_up, deliver, nothing_left, running, stored, wait_until
from tests.support.stored import exact

from sidelight import Store
from sidelight.store.witness import GONE


def sidecars(path):
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]


def remove_sidecars(path):
    for each in sidecars(path):
        each.unlink(missing_ok=True)


def rename(path, backup):
    """As SQLite's manual says: the write-ahead log goes first."""
    remove_sidecars(path)
    backup.rename(path)


def symlink(path, backup):
    """The path becomes a link to another file."""
    other = path.with_name("other.db")
    for file, moved in zip([path, *sidecars(path)], [other, *sidecars(other)], strict=True):
        with contextlib.suppress(FileNotFoundError):
            file.rename(moved)
    path.symlink_to(backup)


def rotate(path, backup):
    """The file is moved away, and another process has made an empty one."""
    symlink(path, backup)
    path.unlink()
    path.touch()


def delete(path, backup):
    remove_sidecars(path)
    path.unlink()


def delete_log(path, backup):
    """Only the write-ahead log is deleted."""
    path.with_name(path.name + "-wal").unlink()


@pytest.mark.parametrize(
    "replace", [rename, symlink, rotate, delete, delete_log], ids=lambda how: how.__name__
)
def test_later_events_are_in_the_new_file(tmp_path, replace, row):
    path = tmp_path / "events.db"
    url = f"sqlite:///{path}"
    with running(url, order=Order(pause=0.002, configure={})) as program:
        program.emit(100)
        caught_up(url, program)
        backup = tmp_path / "backup.db"
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(backup)) as target,
        ):
            source.backup(target)
        program.emit(50)
        replace(path, backup)
        program.emit(20)
        earlier = set(program.reports.numbers)
        program.emit(200)
        assert program.stop() == 0, program.told()
    deliver(url)
    acknowledged = set(program.reports.numbers)
    found = [event.attributes["n"] for event in exact(url)]
    gone = acknowledged - set(found)
    with Store(url) as opened:
        counted = sum(loss.count for loss in opened.losses() if loss.reason == GONE)
    row(
        22,
        f"store: {replace.__name__}",
        injected=1,
        verdict=balance(acknowledged, found, counted=counted),
    )
    assert gone <= earlier
    nothing_left(url)


def is_sound(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        try:
            return connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        except sqlite3.DatabaseError:
            return False


@pytest.mark.parametrize("share", [0], ids=["nothing is left"])
def test_no_event_is_acknowledged_by_a_file_that_was_cut(tmp_path, share, row):
    """A commit succeeds, because SQLite has pages in memory and in its log.

    What the log still has is written into the file when it is closed, so that an empty file may
    become one that is malformed.
    """
    path, backup = tmp_path / "events.db", tmp_path / "backup.db"
    url = f"sqlite:///{path}"
    with running(url, order=Order(pause=0.002, configure={})) as program:
        program.emit(300)
        caught_up(url, program)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as source:
            source.execute("PRAGMA wal_checkpoint")
            source.execute("VACUUM INTO ?", (str(backup),))
        os.truncate(path, int(path.stat().st_size * share))
        program.emit(20)
        earlier = set(program.reports.numbers)
        program.emit(200)
        assert program.stop() == 0, program.told()
    if is_put_back := not is_sound(path):  # else the relay has made the tables again
        remove_sidecars(path)
        backup.rename(path)
    deliver(url)
    found = [event.attributes["n"] for event in exact(url)]
    acknowledged = set(program.reports.numbers)
    with Store(url) as opened:
        counted = sum(loss.count for loss in opened.losses() if loss.reason == GONE)
    # The relay that has noticed it counts what is gone; the one that finds a copy knows of nothing.
    known = acknowledged - (earlier - set(found) if is_put_back else set())
    verdict = balance(known, found, counted=counted)
    row(22, f"store: cut to {share}", injected=1, verdict=verdict)
    assert acknowledged - set(found) <= earlier
    nothing_left(url)


def test_a_reader_follows_the_path(tmp_path):
    """Also one that was opened before."""
    path, other = tmp_path / "events.db", tmp_path / "other.db"
    urls = [f"sqlite:///{path}", f"sqlite:///{other}"]
    for url, calls in zip(urls, (20, 30), strict=True):
        with running(url, order=Order(calls=calls, configure={})) as program:
            assert program.end() == 0
        deliver(url)
        assert stored(url) == calls
    with Store(urls[0]) as opened:
        assert opened.size() == 20
        other.replace(path)
        remove_sidecars(path)
        wait_until(lambda: opened.size() == 30)
