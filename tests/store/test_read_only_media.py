"""A store that can only be read: on read-only media, or in a directory of another user."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from tests.support.stored import NOON, record, store

from sidelight import Store
from sidelight.exceptions import StoreError
from sidelight.store.sink import StoreSink


@pytest.fixture
def directory():
    """A directory that every user may read."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    made.chmod(0o755)
    shutil.rmtree(made)


@contextlib.contextmanager
def read_only(directory):
    """Only for reading, also for root, who becomes another user for a while."""
    for path in directory.iterdir():
        path.chmod(0o444)
    directory.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        directory.chmod(0o755)


def count(path):
    with Store(f"sqlite:///{path}") as opened:
        return len(opened.timeline("a1"))


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_copy_is_read(directory, journal):
    path = directory / "events #1.db"
    store(f"sqlite:///{directory / 'live.db'}", [record(at=NOON + n) for n in range(5)])
    (directory / "live.db").rename(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
    with read_only(directory):
        assert count(path) == 5
    assert [each.name for each in directory.iterdir() if "-" in each.name] == []


def test_a_store_that_another_user_writes_is_read_as_it_is_now(directory):
    path = directory / "events.db"
    url = f"sqlite:///{path}"
    store(url, [record(bits=1)])
    with contextlib.ExitStack() as stack:
        with read_only(directory):
            opened = stack.enter_context(Store(url))
            assert len(opened.timeline("a1")) == 1
        path.chmod(0o644)
        store(url, [record(bits=2)])
        with read_only(directory):
            assert len(opened.timeline("a1")) == 2
        path.chmod(0o644)
        sink = stack.enter_context(contextlib.closing(StoreSink(url)))
        sink.write([record(bits=3)], {})
        with read_only(directory):
            assert len(opened.timeline("a1")) == 3


def test_a_log_that_cannot_be_read_is_named(directory):
    """Without the log the answers would be wrong."""
    live = directory.with_name(f"{directory.name}-live")
    live.mkdir()
    with contextlib.closing(StoreSink(f"sqlite:///{live / 'events.db'}")) as sink:
        sink.write([record()], {})
        for suffix in ("", "-wal"):
            shutil.copy(live / f"events.db{suffix}", directory)
    shutil.rmtree(live)
    with read_only(directory), pytest.raises(StoreError, match=r"write-ahead log .* writable"):
        count(directory / "events.db")
