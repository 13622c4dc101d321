"""A descriptor whose number was closed by other code and opened again is another file."""

import contextlib
import errno
import gc
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO

import pytest
from tests.support import postgres
from tests.support.platforms import needs_spool_files
from tests.support.stored import record, store

from sidelight.exceptions import SpoolError
from sidelight.host import Descriptor, descriptors_of, socket_descriptor
from sidelight.record import frame
from sidelight.spool import DISK, PAGE, Entry, Quarantine, Segment, Spool, system
from sidelight.store import parse_url, sqlite
from sidelight.store.write_lock import WriteLock
from sidelight.transactions.outbox.position import position_beside, read_position

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


OPENS = {
    "a new file": lambda path: DISK.create(path / "new"),
    "a file": lambda path: DISK.open(path / "file", writable=True),
    "a file, made where it is missing": lambda path: DISK.open_or_create(path / "file", 0o600),
    "a directory": system.sync_directory,
    "a write-ahead log": lambda path: sqlite.sync_wal(path / "store"),
    "a lock of a store": lambda path: WriteLock(path / "store").__enter__(),
    "a position": lambda path: read_position(str(path / "shop")),
    "a position that stays open": lambda path: position_beside(str(path / "shop")),
    "a quarantined record": lambda path: Quarantine(path).keep(ENTRY),
}


@pytest.mark.parametrize("what", OPENS)
def test_a_number_that_is_taken_while_it_is_opened_is_of_other_code(what, tmp_path, monkeypatch):
    """Other code closes all descriptors just after a thread has opened one, and opens its own."""
    for name in ("file", "store-wal", "shop-outbox"):
        (tmp_path / name).write_bytes(b"x" * 100)
    files = []

    def open_and_lose(*arguments, **named):
        number = open_really(*arguments, **named)
        os.close(number)
        files.append((tmp_path / f"business-{len(files)}").open("xb", buffering=0))
        assert files[-1].fileno() == number
        return number

    open_really = os.open
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", open_and_lose)
        with contextlib.suppress(OSError):
            OPENS[what](tmp_path)
    assert files
    for file in files:
        file.write(b"of other code")  # fails where the descriptor is closed
        file.close()
        assert (tmp_path / file.name).read_bytes() == b"of other code"


def test_a_file_that_is_renamed_meanwhile_is_not_found(tmp_path):
    """As an unfinished segment that its writer has just finished."""
    path = tmp_path / ".a.new"
    path.touch()
    number = os.open(path, os.O_RDWR)
    path.rename(tmp_path / "a.segment")
    with pytest.raises(FileNotFoundError):
        Descriptor(number, path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


@pytest.mark.parametrize("change", ["unlink", "replace"])
def test_a_file_that_another_relay_deletes_meanwhile_is_open_and_closed(change, tmp_path):
    path = tmp_path / "file"
    path.touch()
    number = os.open(path, os.O_RDWR)
    if change == "unlink":
        path.unlink()
    else:
        (tmp_path / "other").touch()
        (tmp_path / "other").rename(path)
    Descriptor(number, path).close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def _files_of_other_code():
    return [tempfile.TemporaryFile(buffering=0) for _ in range(20)]


@pytest.fixture(autouse=True)
def _forgets_files(monkeypatch):
    """A later test may get the inode of a file that SQLite cannot open any more."""
    for name in ("_unusable", "_opened", "_refused"):
        monkeypatch.setattr(sqlite, name, set())


class _OpensMeanwhile(sqlite3.Connection):
    """Other code that opens its files just before SQLite closes the numbers."""

    files: Sequence[IO[bytes]] = ()
    descriptors = frozenset()

    def close(self):
        if self.descriptors:  # not when it is collected
            self.files = _files_of_other_code()
        super().close()


class _StoreFile(sqlite.StoreFile, _OpensMeanwhile):
    """A connection of the product, above other code."""


@pytest.mark.parametrize("when", ["before", "while", "never"])
def test_sqlite_closes_no_file_of_other_code(when, tmp_path, monkeypatch):
    """Other code has closed its descriptors, and opens files before or while SQLite closes them."""
    (tmp_path / "store").touch()
    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "StoreFile", _StoreFile if when == "while" else sqlite.StoreFile)
        opened = sqlite.open_file(tmp_path / "store", read_only=False)
    opened.execute("CREATE TABLE t (n)")
    opened.execute("INSERT INTO t VALUES (1)")
    for each in opened.descriptors:
        os.close(each)
    files = _files_of_other_code() if when == "before" else []
    opened.close()
    for file in [*files, *getattr(opened, "files", ())]:
        file.write(b"of other code")
        file.close()
    assert sqlite.is_unusable(tmp_path / "store") is (when == "before")
    if when != "before":
        with contextlib.closing(sqlite.open_file(tmp_path / "store", read_only=False)) as again:
            assert again.execute("SELECT n FROM t").fetchall() == [(1,)]


def test_no_connection_is_opened_beside_one_that_has_lost_its_files(tmp_path, monkeypatch):
    path = tmp_path / "store"
    path.touch()
    opened = sqlite.open_file(path, read_only=True)
    for each in opened.descriptors:
        os.close(each)
    with pytest.raises(sqlite3.OperationalError, match="closed the descriptors"):
        sqlite.open_file(path, read_only=False)
    opened.close()
    sqlite.open_file(path, read_only=False).close()


def test_a_relay_that_has_lost_its_files_opens_them_again(tmp_path):
    """Only where it cannot, the process leaves its events to another relay."""
    path = tmp_path / "store"
    path.touch()
    opened = sqlite.open_file(path, read_only=False)
    for each in opened.descriptors:
        os.close(each)
    assert not sqlite.is_unusable(path)  # it has not noticed yet
    with pytest.raises(sqlite3.OperationalError, match="closed the descriptors"):
        sqlite.open_file(path, read_only=False)
    assert sqlite.is_unusable(path)
    opened.close()
    sqlite.open_file(path, read_only=False).close()
    assert not sqlite.is_unusable(path)


def _sqlite(tmp_path):
    (tmp_path / "store").touch()
    opened = sqlite.open_file(tmp_path / "store", read_only=True)
    return opened, [*map(int, opened.descriptors)]


def _postgres(_):
    connect_server = pytest.importorskip("sidelight.store.postgres").connect_server
    opened = connect_server(parse_url(postgres.new_database()))
    return opened, [opened.pgconn.socket]


@pytest.mark.parametrize("opened_on", [_sqlite, _postgres])
def test_a_collected_connection_closes_no_file_of_other_code(opened_on, tmp_path, monkeypatch):
    opened, numbers = opened_on(tmp_path)
    for number in numbers:
        os.close(number)
    files = _files_of_other_code()
    assert {file.fileno() for file in files}.issuperset(numbers)
    del opened
    gc.collect()
    for file in files:
        file.write(b"of other code")
        file.close()


READS_A_ROW = """
import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("SELECT n FROM t").fetchone())
"""


@pytest.mark.parametrize("other", ["a reader", "a writer"])
def test_what_sqlite_keeps_for_another_connection_stays_out_of_reach(other, tmp_path, monkeypatch):
    """SQLite closes no descriptor of the file while another connection holds a lock of it."""
    path = tmp_path / "store"
    path.touch()
    opened = sqlite.open_file(path, read_only=False)
    opened.execute("CREATE TABLE t (n)")
    opened.execute("INSERT INTO t VALUES (1)")
    beside = sqlite.open_file(path, read_only=other == "a reader")
    for each in opened.descriptors | beside.descriptors:
        os.close(each)
    opened.close()
    files = _files_of_other_code()
    with pytest.raises(sqlite3.OperationalError, match="closed the descriptors"):
        sqlite.open_file(path, read_only=False)
    beside.close()
    for file in files:
        file.write(b"of other code")
        file.seek(0)
        assert file.read() == b"of other code"
        file.close()
    assert not beside.is_usable()
    ran = subprocess.run(
        [sys.executable, "-c", READS_A_ROW, str(path)], capture_output=True, text=True
    )
    assert ran.stdout == "(1,)\n", ran.stderr


READS = """
import os, sys
from sidelight import SidelightError, Store
store = Store(sys.argv[1])
assert len(list(store.events())) == 1
os.closerange(3, 256)
files = [open(f"{sys.argv[2]}/business-{n}", "w+b", buffering=0) for n in range(20)]
for file in files:
    file.write(b"of other code" * 100)
try:
    list(store.events())
except SidelightError as error:
    print(error)
store.close()
for file in files:
    file.seek(0)
    assert file.read() == b"of other code" * 100
"""


def test_a_reader_whose_descriptors_are_closed_reads_and_closes_no_other_file(tmp_path):
    store(url := f"sqlite:///{tmp_path / 'events.db'}", [record()])
    ran = subprocess.run(
        [sys.executable, "-c", READS, url, str(tmp_path)], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "closed the descriptors of this file" in ran.stdout


def test_a_socket_whose_number_is_another_files_is_never_its_own(tmp_path):
    ends = socket.socketpair()
    own = socket_descriptor(ends[0].fileno())
    assert own.is_own()
    number = ends[0].detach()
    os.close(number)
    assert not socket_descriptor(number).is_own()
    with (tmp_path / "business").open("wb") as file:
        assert file.fileno() == number
        for each in (own, socket_descriptor(number)):
            assert not each.is_own()
            each.close()
    ends[1].close()


def test_a_lock_that_the_file_system_refuses_leaves_nothing_open(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(DISK, "lock", refuse, raising=False)
    with pytest.raises(OSError, match="No locks"):
        WriteLock(tmp_path / "store").__enter__()
    assert not descriptors_of(tmp_path / "store.lock")


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
        for module in ("host.descriptor", "spool.disk", "spool.locks", "spool.system"):
            patched.setattr(f"sidelight.{module}.os", _FakedOs(file.fileno()))
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
