"""Connections to a SQLite store, and the lock that serializes its writers."""

from __future__ import annotations

import contextlib
import inspect
import os
import sqlite3
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.engine.create import create_engine  # tracers wrap `sqlalchemy.create_engine`
from sqlalchemy.exc import DisconnectionError

from sidelight.exceptions import StoreMissingError
from sidelight.host import monotonic, sleep
from sidelight.spool import DISK, make_private_directory

_LOCK_TIMEOUT: Final = 0.25  # seconds
_EVERYONE: Final = (
    # Write no temporary files, because in a container only volumes may be writable.
    "temp_store = MEMORY",
)
_READER: Final = (*_EVERYONE, "query_only = ON")
_WRITER: Final = (
    *_EVERYONE,
    # Affects a new file only. `sidelight prune` then shortens the file.
    "auto_vacuum = INCREMENTAL",
    "journal_mode = WAL",
    "synchronous = NORMAL",
    # Checkpoint every 32 MB instead of every 4, because each checkpoint costs fsyncs.
    "wal_autocheckpoint = 8000",
    "cache_size = -32768",
)


def open_file(url: URL, *, create: bool, read_only: bool) -> Engine:
    """Make an engine on a store's file; a transaction that may write begins by locking the file.

    Raises:
        StoreMissingError: the file does not exist and ``create`` is False.
    """
    path = Path(url.database or "")
    if not path.exists():
        if not create:
            raise StoreMissingError(
                url=url,
                remedy="run something that emits, or name another with --store or SIDELIGHT_STORE",
            )
        _create(path)
    engine = create_engine(
        url,
        connect_args={
            "isolation_level": None,
            "check_same_thread": False,
            "timeout": _LOCK_TIMEOUT,
        },
    )

    _prepare_connections(engine, path, read_only=read_only)
    return engine


def _prepare_connections(engine: Engine, path: Path, *, read_only: bool) -> None:
    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, record: Any, arguments: Any, named: Any) -> sqlite3.Connection:
        record.info["identity"] = identity = FileIdentity(path)
        connection = connect_file(*arguments, **named)
        if read_only and not _can_be_read(connection):
            connection.close()
            log = Path(f"{path}-wal")
            record.info["identity"] = identity = FileIdentity(path, log, content=True)
            connection = _connect_immutable(path, log, named)
        if not identity.is_current():
            connection.close()
            raise sqlite3.OperationalError("the file was replaced while it was opened")
        return connection

    @event.listens_for(engine, "checkout")
    def _check(_connection: Any, record: Any, _proxy: Any) -> None:
        if not record.info["identity"].is_current():
            raise DisconnectionError("the file was replaced")  # the pool opens the new file

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        for pragma in _READER if read_only else _WRITER:
            cursor.execute(f"PRAGMA {pragma}")
        if not read_only:
            record.info["identity"] = FileIdentity(path, Path(f"{path}-wal"))
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _can_be_read(connection: sqlite3.Connection) -> bool:
    """Whether SQLite can open the file with its log; it may have to create files beside it."""
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode & 0xFF not in {
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_READONLY,
        }
    return True


def _connect_immutable(path: Path, log: Path, named: Any) -> sqlite3.Connection:
    """Open a file on read-only media, where SQLite cannot create the index of its log.

    Raises:
        OperationalError: the log is not empty; without it answers would be wrong.
    """
    if log.exists() and log.stat().st_size:
        raise sqlite3.OperationalError(
            "its write-ahead log cannot be read here: copy both files to a writable directory"
        )
    return connect_file(f"{path.absolute().as_uri()}?immutable=1", **named, uri=True)


def _create(path: Path) -> None:
    make_private_directory(path.parent)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


class FileIdentity:
    """The device and inode of files when they were opened.

    A restore tool or a log rotation may put another file in place of a store. Commits into the old
    file succeed, but no reader finds them.

    Args:
        paths: the files.
        content: compare size and time of change as well, for a file that SQLite does not watch.
    """

    def __init__(self, *paths: Path, content: bool = False) -> None:
        self._content = content
        self._found = {path: self._look_at(path) for path in paths}

    def is_current(self) -> bool:
        """Whether the paths still name the same files."""
        return all(self._look_at(path) == found for path, found in self._found.items())

    def _look_at(self, path: Path) -> tuple[int, ...] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        content = (found.st_size, found.st_mtime_ns) if self._content else ()
        return found.st_dev, found.st_ino, *content


def is_replaced(connection: Connection) -> bool:
    """Whether a connection's file, or its write-ahead log, is no longer the one at its path."""
    return not connection.connection.info["identity"].is_current()


def connect_file(*arguments: Any, **named: Any) -> sqlite3.Connection:
    """Call `sqlite3.connect` without a tracer's wrapper: the relay's queries are not traced."""
    connection: sqlite3.Connection = inspect.unwrap(sqlite3.connect)(*arguments, **named)
    return connection


def sync_wal(path: Path) -> None:
    """Make every commit so far survive a power loss.

    With ``synchronous = NORMAL`` a commit is in the write-ahead log, which SQLite flushes only
    before the next checkpoint. This flushes the log directly, because a checkpoint needs the write
    lock and copies pages. Closing the log releases no lock of SQLite, because it has none there.

    Raises:
        OSError: the flush failed.
    """
    for file in (Path(f"{path}-wal"), path.parent):  # the directory, because the log may be new
        with contextlib.suppress(FileNotFoundError):  # a checkpoint has flushed and deleted the log
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def has_wal_reset_bug() -> bool:
    """Whether this SQLite can lose commits in WAL mode with two connections.

    Fixed in 3.51.3, 3.50.7 and 3.44.6.
    """
    version = sqlite3.sqlite_version_info
    fixed = {(3, 50): (3, 50, 7), (3, 44): (3, 44, 6)}
    return version < fixed.get(version[:2], (3, 51, 3))


def write_lock(path: Path) -> AbstractContextManager[None]:
    """The lock that every process holds in a write transaction, where SQLite's bug needs one."""
    return WriteLock(Path(f"{path}.lock")) if has_wal_reset_bug() else nullcontext()


class WriteLock:
    """Serializes the write transactions of all processes on one SQLite file.

    The file of the lock is open only while the lock is held. A daemon that closes every descriptor
    takes none away, and a file that was replaced is not locked again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> None:
        make_private_directory(self._path.parent)
        self._fd = DISK.open_or_create(self._path, 0o600)
        until = monotonic() + _LOCK_TIMEOUT
        while not DISK.lock(self._fd):
            if monotonic() > until:
                self.__exit__()
                raise TimeoutError
            sleep(0.001)

    def __exit__(self, *_: object) -> None:
        fd, self._fd = self._fd, -1
        DISK.unlock(fd)
        DISK.close(fd)
