"""Connections to a SQLite store."""

from __future__ import annotations

import contextlib
import inspect
import os
import sqlite3
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sidelight.exceptions import StoreMissingError
from sidelight.host import (
    Descriptor,
    close_lost,
    descriptors_of,
    keep_for_ever,
    monotonic,
    sleep,
    status_of,
)
from sidelight.spool import (
    make_private_directory,
    sync,
    sync_directory,
)
from sidelight.store.database import Connection, DatabaseError
from sidelight.store.file_identity import FileIdentity, beside, is_cut

LOCK_TIMEOUT: Final = 0.25
"""Seconds that a connection waits for a lock."""
_OPENING: Final = 1.0  # seconds for another connection to be closed
_PAUSE: Final = 0.005  # seconds
_CHECKPOINT: Final = 1.0  # seconds within which a checkpoint writes the pages behind the header
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


class StoreFile(sqlite3.Connection):
    """The driver's connection to the file of a store.

    Attributes:
        identity: of the file, and of its write-ahead log where the connection may write.
        descriptors: of this process for the file, its log and the log's index; SQLite does not tell
            which of them are this connection's.
    """

    identity: FileIdentity
    descriptors: frozenset[Descriptor] = frozenset()

    def is_usable(self) -> bool:
        """Return whether each file that the connection has opened still has its descriptor."""
        noted = self.descriptors
        own = {each.file for each in noted if each.is_own()}
        is_whole = own.issuperset(each.file for each in noted)
        return is_whole or not self.descriptors  # another thread may just close the connection

    def check(self) -> None:
        """Check that the file and its log are at their path, and that no program has cut the file.

        A commit into such a file succeeds: SQLite has pages of it in memory and in the log.

        Raises:
            sqlite3.OperationalError: the file was replaced, or is cut.
        """
        if not self.identity.is_current():
            raise sqlite3.OperationalError(_REPLACED)
        until = monotonic() + _CHECKPOINT
        while is_cut(self.descriptors, self.identity):
            if monotonic() > until:
                _cut.update(each.file for each in self.descriptors)
                raise sqlite3.OperationalError(_CUT)
            sleep(0.01)

    def __del__(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.close()

    def close(self) -> None:
        """Close; keep the connection for ever where a descriptor of it is another file's now.

        SQLite would close that file. It would also share the descriptors with each other
        connection of this process to the store, so that the store cannot be opened here any more.
        The latter is so as well where it keeps a lost descriptor for another connection.
        """
        if self.is_usable():
            self.descriptors = frozenset()
            super().close()
        elif not close_lost(self.descriptors, super().close):
            _unusable.update(each.file for each in self.descriptors)
            keep_for_ever(self)
            return
        self.descriptors = frozenset()


_CANNOT_CREATE: Final = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL}
)
_opened: Final[set[weakref.ref[StoreFile]]] = set()  # also by a parent process, before a fork
_unusable: Final[set[tuple[int, int]]] = set()  # the device and inode of files
_refused: Final[set[tuple[int, int]]] = set()  # which no relay could open at its last attempt
_cut: Final[set[tuple[int, int]]] = set()
_REPLACED: Final = "its file was replaced"
_CUT: Final = "another program has cut its file"
_DESCRIPTORS_CLOSED: Final = "other code has closed the descriptors of this file"


def is_unusable(path: Path) -> bool:
    """Return whether a relay can no longer open this file in this process.

    SQLite may have kept descriptors (see `StoreFile.close`), or another connection of the process
    has lost its own. A relay that has lost descriptors closes its connection, and opens another.
    """
    return bool(_unusable or _refused) and _file_of(path) in _unusable | _refused


def _file_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _refuse_beside_lost(path: Path, *, read_only: bool) -> None:
    """Check each open connection to the file, because a new one would share its descriptors.

    Raises:
        sqlite3.OperationalError: one has lost descriptors.
    """
    lost = {
        each.file
        for reference in _opened.copy()
        if (opened := reference()) is not None and not opened.is_usable()
        for each in opened.descriptors
    }
    if not (lost or _unusable or _refused):
        return
    file = _file_of(path)
    if file is None:
        return
    if file in lost | _unusable:
        if not read_only:
            _refused.add(file)
        raise sqlite3.OperationalError(_DESCRIPTORS_CLOSED)
    _refused.discard(file)


class SqliteConnection(Connection):
    """A connection of a relay; each transaction begins by locking the file."""

    backend = "sqlite"
    errors = sqlite3.Error
    raw: StoreFile

    def __init__(self, path: Path, *, create: bool, read_only: bool) -> None:
        """Open the file (see `open_file`).

        Raises:
            StoreMissingError: the file does not exist and ``create`` is False.
            DatabaseError: the file cannot be opened.
        """
        _create_file(path, create=create)
        self._begin: Final = begin_statement(read_only=read_only)
        try:
            self.raw = open_file(path, read_only=read_only)
        except sqlite3.Error as error:
            raise DatabaseError("PRAGMA", error) from error

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Any:
        """Execute a statement and return the driver's cursor.

        Raises:
            DatabaseError: the database refuses, or other code has closed its descriptors.
        """
        if not self.raw.is_usable():
            raise DatabaseError(statement, sqlite3.OperationalError(_DESCRIPTORS_CLOSED))
        return super().execute(statement, parameters)

    def _dialect(self, statement: str) -> str:
        return statement.removesuffix(" FOR UPDATE")  # the transaction has locked the file

    def begin(self) -> None:
        """Begin; a transaction that may write locks the file at once."""
        self.execute(self._begin)

    def rollback(self) -> None:
        """Roll back a transaction that is open."""
        with contextlib.suppress(sqlite3.Error):
            if self.raw.in_transaction and self.raw.is_usable():
                self.raw.rollback()

    def has_table(self, name: str) -> bool:
        """Return whether the store has a table of this name."""
        query = "SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND name = ?"
        return self.execute(query, (name,)).fetchone() is not None

    def check_file(self) -> None:
        """Check that a commit reaches the file: see `StoreFile.check`.

        Raises:
            DatabaseError: it does not.
        """
        try:
            self.raw.check()
        except (sqlite3.Error, OSError) as error:
            raise DatabaseError("COMMIT", error) from error

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(sqlite3.Error):
            self.raw.close()


def begin_statement(*, read_only: bool) -> str:
    """BEGIN; a transaction that may write locks the file at once."""
    return "BEGIN" if read_only else "BEGIN IMMEDIATE"


def _create_file(path: Path, *, create: bool) -> None:
    """Create the file of a store where it is missing.

    Raises:
        StoreMissingError: the file does not exist and ``create`` is False.
        DatabaseError: this user may not look at it.
    """
    try:
        if status_of(path) is not None:
            return
    except OSError as error:
        raise DatabaseError("open", error) from error
    if not create:
        raise StoreMissingError(
            url=f"sqlite:///{path}",
            remedy="run something that emits, or name another with --store or SIDELIGHT_STORE",
        )
    make_private_directory(path.parent)
    Descriptor(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), path).close()


def _set(connection: StoreFile, pragma: str) -> None:
    """Set a property of a connection.

    SQLite does not wait for a lock here where the last other connection is just being closed.
    """
    until = monotonic() + _OPENING
    while True:
        try:
            connection.execute(f"PRAGMA {pragma}").fetchall()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or monotonic() > until:
                raise
            sleep(_PAUSE)
        else:
            return


def open_file(path: Path, *, read_only: bool) -> StoreFile:
    """Open the file of a store.

    Raises:
        sqlite3.Error: the file cannot be opened, or was replaced meanwhile.
    """
    _refuse_beside_lost(path, read_only=read_only)
    connection = _open(path, read_only=read_only)
    _opened.add(weakref.ref(connection, _opened.discard))
    try:
        connection.descriptors = frozenset(descriptors_of(path))
        for pragma in _READER if read_only else _WRITER:
            _set(connection, pragma)
        if not read_only:
            connection.identity = FileIdentity(path, _created_log(connection, path))
        connection.descriptors |= descriptors_of(path, beside(path, "-wal"), beside(path, "-shm"))
        if not read_only:
            _check_content(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_content(connection: StoreFile) -> None:
    """Check the file, and where a program has cut it also its pages.

    Raises:
        sqlite3.Error: it cannot be used.
    """
    connection.check()
    if connection.identity.file in _cut:
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(f"{_CUT}: {answer}")
        _cut.discard(connection.identity.file)


def _created_log(connection: sqlite3.Connection, path: Path) -> Path:
    """Return the write-ahead log; the first transaction on a new file creates it."""
    log = beside(path, "-wal")
    if status_of(log) is None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
    return log


def _open(path: Path, *, read_only: bool) -> StoreFile:
    identity = FileIdentity(path)
    connection = _connect(str(path))
    try:
        if read_only and (cause := _cannot_create(connection)):
            connection.close()
            log = beside(path, "-wal")
            identity = FileIdentity(path, log, content=True)
            connection = _connect_immutable(path, log, cause)
    except BaseException:
        connection.close()
        raise
    if not identity.is_current():
        connection.close()
        raise sqlite3.OperationalError("the file was replaced while it was opened")
    connection.identity = identity
    return connection


def _connect(name: str, *, uri: bool = False) -> StoreFile:
    connection = connect_file(
        name,
        uri=uri,
        timeout=LOCK_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        factory=StoreFile,
    )
    assert isinstance(connection, StoreFile)  # noqa: S101  # for mypy
    return connection


def _cannot_create(connection: sqlite3.Connection) -> str:
    """Return why SQLite cannot create the files that it needs beside the store; "" if it can."""
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        code = error.sqlite_errorcode
        if code == sqlite3.SQLITE_IOERR_SHMSIZE or code & 0xFF in _CANNOT_CREATE:
            return str(error)
    return ""


def _connect_immutable(path: Path, log: Path, cause: str) -> StoreFile:
    """Open a file on read-only media or a full disk: SQLite cannot create the index of its log.

    Raises:
        OperationalError: the log is not empty; without it answers would be wrong.
    """
    status = status_of(log)
    if status is not None and status.st_size:
        raise sqlite3.OperationalError(
            "its write-ahead log cannot be read here, because no file can be created beside it"
            f" ({cause}): copy both files to a writable directory"
        )
    return _connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)


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
    log = beside(path, "-wal")
    with contextlib.suppress(FileNotFoundError):  # a checkpoint has flushed and deleted the log
        mode = os.O_RDWR  # Windows flushes no file that is open for reading
        with Descriptor(os.open(log, mode), log) as fd:
            sync(fd)
    sync_directory(log.parent)  # the log may be new
