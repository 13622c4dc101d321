"""`sidelight doctor`: one table of states, each with the words, the remedy and the exit code.

A row is a generator. It brings a state about and yields what the doctor must report then: a finding
(state, check, words), and the exit code. Words are a regular expression over "message → remedy".
WELL stands for no finding that is wrong. The exit code is that of the whole answer, so that it is 1
beside a finding that is well where another one is wrong.
"""

import contextlib
import errno
import http.server
import os
import re
import shutil
import signal
import socket
import sqlite3
import textwrap
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from tests.support.commands import (
    KILLED,
    TWO_ORDERS,
    Living,
    emit,
    end,
    of,
    printed,
    relaying,
    running,
    sidelight,
    spawn,
    stored,
    understood,
    wait_for,
)
from tests.support.crafted import HEAD, LEDGER, PAYLOADS, moment, segment_in
from tests.support.disks import small_disk
from tests.support.platforms import needs_linux
from tests.support.postgres import Postgres, binaries, new_database, own_server
from tests.support.proxy import Proxy
from tests.support.rules import alter, rule
from tests.support.shim import Shim
from tests.support.stored import BACKENDS, DAY, NOON, ledger, record, store

from sidelight import Store
from sidelight.cli.doctor.outboxes import check_outboxes
from sidelight.record import SPAN
from sidelight.record.costs import Costs

OK, NOTE, WRONG = "ok", "note", "wrong"
WELL = (None, None, None, 0)
FIRST = 'receive("first")\nassert sidelight.flush(60)'
WAITS = 'print("ready", flush=True)\nsys.stdin.readline()\n'


@dataclass
class Place:
    """Where a row's state is: a SQLite store that is not there yet, and its spool."""

    tmp: Path
    stack: contextlib.ExitStack
    monkeypatch: pytest.MonkeyPatch
    filled: Path

    def __post_init__(self):
        self.path = self.tmp / "events.db"
        self.spool = self.tmp / "events.db-spool"
        self.options = of(self.path)

    def use(self, store, spool):
        """Name another store and spool; returns the environment that names them."""
        self.spool = spool
        self.options = ("--store", store, "--spool", spool)
        return {"SIDELIGHT_STORE": store, "SIDELIGHT_SPOOL": str(spool)}

    def store(self, url, *records):
        """Name a store in which another relay has put records."""
        store(url, records or [record()])
        self.use(url, self.tmp / "spool")

    def first(self):
        """Let a program emit one event; its store and spool are copied, because all are alike."""
        shutil.copytree(self.filled, self.tmp, dirs_exist_ok=True)


ROWS = []


def row(function):
    """Enter a row; one with parameters is entered for each of them."""
    for given in getattr(function, "given", [()]):
        name = "-".join([function.__name__, *map(str, given)])
        marks = getattr(function, "pytestmark", [])
        ROWS.append(
            pytest.param(lambda at, given=given: function(at, *given), id=name, marks=marks)
        )
    return function


def given(*values):
    def mark(function):
        function.given = [value if isinstance(value, tuple) else (value,) for value in values]
        return function

    return mark


def snapshot(*costs):
    counted = Costs()
    for ns in costs:
        counted.add(ns)
    return counted.snapshot()


def findings(*arguments):
    """What the doctor reports, and its exit code."""
    said = sidelight("doctor", "--json", *arguments)
    for each in said.json:
        for command in printed(each["remedy"]):
            assert understood(command), each
    return said.json, said.code


def reports(expected, *options):
    """Whether the doctor reports the finding, and ends with the exit code.

    A busy machine may delay emissions beyond the budget; only rows of the budget count that.
    """
    state, check, words, expected_code = expected
    found, code = findings(*options)
    wrong = {each["check"] for each in found if each["state"] == WRONG}
    assert code == bool(wrong), found
    if check != "budget":
        wrong.discard("budget")
    return bool(wrong) == expected_code and (
        check is None
        or any(
            (each["check"], each["state"]) == (check, state)
            and re.search(words, f"{each['message']} → {each['remedy']}")
            for each in found
        )
    )


# -- processes and relays --------------------------------------------------------------------


@row
def nothing_is_wrong(at):
    emit(TWO_ORDERS, at.path)
    yield OK, "store", r"6 events, the latest", 0
    yield WELL


@row
def orphaned_records(at):
    emit(KILLED, at.path, ends=signal.SIGKILL, OTEL_SERVICE_NAME="shop")
    before = {each: each.read_bytes() for each in at.spool.iterdir()}
    words = (
        r"^store: 500 records \([\d.]+ kB\), the oldest .* old, of shop \d+, which has ended → "
        rf"`sidelight relay --once --store sqlite:///{at.path}` delivers them"
    )
    yield WRONG, "backlog", words, 1
    assert before == {each: each.read_bytes() for each in at.spool.iterdir()}
    sidelight("relay", "--once", *at.options)
    yield OK, "backlog", "no record waits", 0
    yield WELL


@row
@needs_linux
def a_process_that_is_stopped(at):
    at.first()
    living = at.stack.enter_context(Living(at.path))
    living.emit(1)
    pid = living.process.pid
    living.process.send_signal(signal.SIGSTOP)
    yield WRONG, "backlog", rf"of process {pid}, which is stopped .* → kill -CONT {pid}", 1
    living.process.send_signal(signal.SIGCONT)
    yield WRONG, "backlog", "which is running", 1


@row
@needs_linux
def an_application_that_is_stopped_with_its_own_relay(at):
    """Nothing waits: only the process itself tells."""
    script = f'{FIRST}\nprint("ready", flush=True)\ntime.sleep(600)'
    process = at.stack.enter_context(running(script, at.path))
    yield OK, "backlog", "no record waits", 0
    process.send_signal(signal.SIGSTOP)
    yield WRONG, "process", rf"^process {process.pid} is stopped .* → kill -CONT {process.pid}", 1
    assert "stopped" in sidelight("spool", *at.options).out
    process.send_signal(signal.SIGCONT)
    yield WELL
    at.monkeypatch.setattr("sidelight.cli.doctor.processes.SILENT", 0)
    yield (
        WRONG,
        "process",
        rf"process {process.pid} on .* its last sign of life .* old: its relay",
        1,
    )
    process.kill()
    process.wait()
    words = rf"process {process.pid} on .* its end is not noted: .* → `sidelight relay --once .*`"
    yield WRONG, "process", words, 1
    shutil.rmtree(at.spool)
    yield (
        NOTE,
        "process",
        r"1 process silent .*\(instance [0-9a-f]{16}\).* → .*--without INSTANCE",
        0,
    )


@row
def records_that_are_no_events(at):
    at.first()
    note = LEDGER + moment(artifact_id=None)
    segment_in(at.spool, f"sqlite:///{at.path}", [note])
    yield WRONG, "backlog", r"^store: 11 records \(\d+ bytes\), 10 events among them, the oldest", 1
    sidelight("relay", "--once", *at.options)
    segment_in(at.spool, f"sqlite:///{at.path}", [note], count=0)
    yield NOTE, "backlog", r"^store: 1 record \(\d+ bytes\), no event among them, the oldest", 0
    segment_in(at.spool, f"sqlite:///{at.path}", [b"\x00\xff"], count=0)  # perhaps an event
    yield (
        WRONG,
        "backlog",
        r"^store: 2 records .*, no event among them, 1 unreadable, the oldest",
        1,
    )


@row
@given((0, NOTE), (SPAN, WRONG))
def records_that_wait_for_the_collector(at, flags, state):
    """An event is nothing to the sink of spans."""
    at.first()
    event = HEAD + moment(flags=flags)
    segment_in(at.spool, f"sqlite:///{at.path}", [event], count=0, sinks=["traces"])
    yield state, "backlog", r"^traces: 1 record .*, which has ended", int(state == WRONG)


@row
def records_that_name_another_store(at):
    at.first()
    other = at.tmp / "other.db"
    emit(KILLED, other, ends=signal.SIGKILL, SIDELIGHT_SPOOL=str(at.spool))
    at.options = (*of(at.path), "--spool", at.spool)
    yield (
        WRONG,
        "backlog",
        f"which has ended → `sidelight relay --once --store sqlite:///{other} --spool {at.spool}`",
        1,
    )


@row
@needs_linux
def a_relay_that_is_stopped(at):
    at.first()
    relay = at.stack.enter_context(relaying(*at.options))
    yield OK, "spool", "of 1 running process", 0
    relay.send_signal(signal.SIGSTOP)
    yield WRONG, "relay", rf"^relay {relay.pid} is stopped .* → kill -CONT {relay.pid}", 1
    living = at.stack.enter_context(Living(at.path))
    living.emit(1)
    waits = rf"waits for relay {relay.pid}: that is stopped .* → kill -CONT {relay.pid}"
    yield WRONG, "backlog", waits, 1
    hint = f"relay {relay.pid} is stopped: `kill -CONT {relay.pid}`"
    assert hint in sidelight("events", *of(at.path)).err


@row
def a_process_in_another_pid_namespace(at):
    """The lock tells that it is alive; its pid means nothing here."""
    at.first()
    script = f"sidelight.configure(relay='external')\nreceive('x')\nprint(os.getpid())\n{WAITS}"
    unshare = ["unshare", "--pid", "--fork", "--kill-child"]
    with running(script, at.path, before=unshare) as child:
        assert int(child.first) < 10
        yield WRONG, "backlog", rf"of process {child.first}, which is running: no relay", 1
    yield WRONG, "backlog", "which has ended", 1


@row
def records_that_are_left_to_a_relay(at):
    at.first()
    living = at.stack.enter_context(Living(at.path))
    yield NOTE, "relay", r"no relay runs, and process \d+ leaves all records to one → start", 0
    living.emit(1)
    yield (
        WRONG,
        "backlog",
        f"which is running: no relay reads them → start `sidelight relay --store sqlite:///{at.path}`",
        1,
    )
    at.monkeypatch.setattr("sidelight.cli.doctor.backlog.PATIENCE", 60 * 10**9)
    yield OK, "backlog", "records are on their way", 0
    at.monkeypatch.setattr("sidelight.cli.doctor.backlog.PATIENCE", 0)
    at.stack.enter_context(relaying(*at.options))
    yield WELL


FORKED_IN_C = """
import ctypes
sidelight.configure()
receive("first")
assert sidelight.flush(60)
if ctypes.PyDLL(None).fork() == 0:
    receive("child")
    print(os.getpid(), flush=True)
    sys.stdin.read()
os._exit(0)
"""
FORKED_BY_A_LIVING_PARENT = FORKED_IN_C.replace("os._exit(0)", "sys.stdin.read()")
CLOSED_IN_PLACE = """
from sidelight.runtime import RUNTIME
sidelight.configure()
receive("first")
assert sidelight.flush(60)
os.closerange(3, 256)
files = [open("/dev/null") for _ in range(40)]
while RUNTIME.settings.relay == "thread" or RUNTIME.relay is not None:
    receive("daemon")
    time.sleep(0.01)
receive("last")
print(os.getpid(), flush=True)
time.sleep(600)
"""


@row
@needs_linux
@given(("FORKED_IN_C", 0), ("CLOSED_IN_PLACE", 1))
def a_process_that_had_to_leave_its_events_to_another_relay(at, program, code):
    """The lock of a segment goes with its descriptor, so that a relay takes the first for ended."""
    program = globals()[program]
    pid = at.stack.enter_context(running(program, at.path)).first
    yield NOTE, "relay", rf"no relay runs, and process {pid} leaves all records to one → start", 1
    yield WRONG, "backlog", rf"of process {pid}, which is running: no relay reads them → start", 1
    sidelight("relay", "--once", *at.options)
    yield OK, "backlog", "no record waits", code


@row
@needs_linux
def a_process_whose_parent_has_a_relay_that_reads_its_events(at):
    """The relay looks for such segments every 2 s."""
    at.stack.enter_context(running(FORKED_BY_A_LIVING_PARENT, at.path))
    wait_for(lambda: stored(at.path) == 2)
    yield OK, "backlog", "no record waits", 0
    yield OK, "spool", "of 2 running processes", 0
    yield WELL


@row
@needs_linux
@given("moved", "replaced", "turned", "deleted")
def a_spool_that_left_its_path_under_a_process(at, how):
    """A process without a relay of its own writes on, where no relay looks."""
    at.first()
    (at.tmp / "links").mkdir()
    real, at.spool = at.spool.rename(at.tmp / "links" / "real"), at.tmp / "links" / "spool"
    at.spool.symlink_to(real)
    if how != "turned":
        at.spool.unlink()
        real.rename(at.spool)
    at.monkeypatch.setenv("SIDELIGHT_SPOOL", str(at.spool))
    at.options = (*of(at.path), "--spool", at.spool)
    living = at.stack.enter_context(Living(at.path))
    living.emit(1)
    sidelight("relay", "--once", *at.options)
    yield NOTE, "relay", "no relay runs", 0
    moved = at.tmp / "links" / "real"
    if how == "deleted":
        shutil.rmtree(at.spool)
    elif how == "turned":
        at.spool.unlink()
    else:
        at.spool.rename(moved)
    if how in {"replaced", "turned"}:
        (at.tmp / "links" / "other").mkdir(mode=0o700)
        at.spool.symlink_to(at.tmp / "links" / "other")
    living.emit(2)
    pid = living.process.pid
    if how == "deleted":
        words = f"process {pid} writes to {at.spool}/.*, which was deleted: .* → end it in order"
    else:
        words = (
            f"process {pid} writes to {moved}/.*, which was moved out of {at.spool}: .* → end it"
            f" in order, .*relay --once .*--spool {moved}"
        )
    yield WRONG, "spool", words, 1
    living.process.send_signal(signal.SIGINT)
    living.process.wait(60)
    sidelight("relay", "--once", *at.options)
    yield OK, "store", ": 3 events", 0
    yield WELL


BUSY = """
import threading
sidelight.configure()
def burn():
    while True:
        sum(range(1000))
print("ready", flush=True)
for _ in range(2):
    threading.Thread(target=burn, daemon=True).start()
n = 0
while True:
    receive(f"order-{n}")
    n += 1
    if n % 2000 == 0:
        time.sleep(0.05)
"""


@row
def a_relay_that_is_late(at):
    """The process's other threads keep the GIL."""
    at.first()
    at.stack.enter_context(running(BUSY, at.path))
    wait_for(lambda: stored(at.path) > 1, 60)
    yield (
        NOTE,
        "backlog",
        f"they are delivered late → start `sidelight relay --store sqlite:///{at.path}` beside it",
        0,
    )


# -- the store -------------------------------------------------------------------------------


@row
def no_store(at):
    yield WRONG, "store", "there is no store at sqlite:.* → run something that emits", 1
    assert [*at.tmp.iterdir()] == []
    at.options = (*at.options, "--spool", at.tmp / "misspelt")
    yield NOTE, "spool", "misspelt was named, and does not exist → correct --spool", 1
    at.options = of(at.path)
    emit(KILLED, at.path, ends=signal.SIGKILL)
    yield (
        WRONG,
        "store",
        "there is no store at .* → 500 events wait in .*: `sidelight relay --once",
        1,
    )
    yield (
        WRONG,
        "backlog",
        f"which has ended → `sidelight relay --once --store sqlite:///{at.path}` delivers them",
        1,
    )


@row
def events_that_another_program_deletes(at):
    at.first()
    yield OK, "counters", r"as many events as were counted \(compared: the only event\)", 0
    with contextlib.closing(sqlite3.connect(at.path, isolation_level=None)) as other:
        other.execute("DELETE FROM events")
    yield WRONG, "counters", "1 event that was counted is no longer there .* → find what deletes", 1


@row
def a_store_that_is_replaced(at):
    """By an older copy, a part of itself, a file that is no store, none: under a living process."""
    at.first()
    copy = at.tmp / "copy.db"
    with contextlib.closing(sqlite3.connect(at.path)) as live:
        live.execute("VACUUM INTO ?", (str(copy),))
    living = at.stack.enter_context(Living(at.path, "thread"))
    living.emit(1)
    yield OK, "store", ": 2 events", 0
    for suffix in ("-wal", "-shm"):
        Path(f"{at.path}{suffix}").unlink()
    copy.replace(at.path)
    for n in (2, 3):
        living.emit(n)
    yield OK, "store", ": 3 events", 1
    (at.tmp / "text").write_text("no database" * 1000)
    (at.tmp / "text").replace(at.path)
    yield WRONG, "store", "(malformed|not a database) → put a sound copy in its place", 1
    at.path.unlink()
    living.emit(4)
    yield OK, "store", ": 1 event,", 1
    yield WRONG, "losses", "gone from the store: .* → keep a copy of the store", 1


@row
@given(
    *(
        (backend, statement)
        for backend in BACKENDS
        for statement in ("DROP TABLE {}losses", "ALTER TABLE {}costs RENAME COLUMN point TO place")
    )
)
def a_table_or_a_column_that_is_gone(at, backend, statement):
    at.store(url := BACKENDS[backend](at.tmp))
    alter(url, statement.format("sidelight." if backend == "postgresql" else ""))
    words = "(no such|does not exist).* → put back what another program has dropped"
    yield WRONG, "store", words, 1


@row
def a_store_that_is_down_beside_a_living_relay(at):
    server = own_server()
    at.stack.callback(lambda: server.is_alive() or server.start())
    url = new_database(server)
    environment = at.use(url, at.tmp / "spool")
    script = f"""{FIRST}
print("ready", flush=True)
sys.stdin.readline()
receive("second")
sys.stdin.readline()
"""
    child = at.stack.enter_context(running(script, url, **environment))
    server.kill()
    child.stdin.write("\n")
    child.stdin.flush()
    yield (
        WRONG,
        "backlog",
        "no relay brings them to the store → see store above: until it answers",
        1,
    )
    server.start()


@row
def a_full_disk_of_the_store(at):
    disk = at.stack.enter_context(small_disk(at.tmp / "disk", 80))
    at.path = disk.path / "events.db"
    at.spool = at.tmp / "spool"
    at.options = (*of(at.path), "--spool", at.spool)
    emit(FIRST, at.path, SIDELIGHT_SPOOL=str(at.spool))
    disk.fill(leave=0)
    yield WRONG, "store", "(is full|disk I/O error) → make room on the disk of the database", 1
    disk.make_room()
    yield WELL


@row
def a_store_of_a_later_version(at):
    with contextlib.closing(sqlite3.connect(at.path)) as connection:
        connection.execute("CREATE TABLE sidelight_schema (version INTEGER)")
        connection.execute("INSERT INTO sidelight_schema VALUES (99)")
        connection.commit()
    yield WRONG, "store", "has schema version 99, this sidelight knows .* → upgrade sidelight", 1


@row
def a_sqlite_file_that_is_locked(at):
    at.first()
    with contextlib.closing(sqlite3.connect(at.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield WRONG, "store", r"cannot be written: database is locked → .*fuser", 1
        yield OK, "store", "1 event", 1
        other.execute("ROLLBACK")
    yield WELL


@row
def a_postgresql_that_is_frozen_then_killed(at):
    server = own_server()
    at.stack.callback(lambda: server.is_alive() or server.start())
    at.stack.callback(server.resume)
    at.store(new_database(server))
    yield WELL
    server.pause()
    began = time.monotonic()
    yield WRONG, "store", "timeout", 1
    assert time.monotonic() - began < 60
    server.resume()
    yield WELL
    server.kill()
    yield WRONG, "store", "onnection refused", 1
    server.start()
    yield WELL


@row
def a_standby(at):
    server, standby = (Postgres(binaries(), "-c", "fsync=off") for _ in range(2))
    at.stack.callback(server.close)
    at.stack.callback(standby.close)
    server.start()  # a new one, because a copy of the other tests' databases takes minutes
    at.store(url := new_database(server))
    data, source = standby.directory / "data", server.url("postgres")
    copied = standby._run("pg_basebackup", "-D", data, "-d", source, "-R", "-cfast", "--no-sync")
    assert copied.wait(300) == 0, standby._told()
    standby.start()
    at.use(standby.url(url.rpartition("/")[2]), at.spool)
    yield OK, "store", "1 event", 1
    yield WRONG, "store", "cannot be written: .*recovery.* → relay to the primary server", 1


@row
def a_user_who_may_only_read(at):
    url, reader = new_database(own_server()), f"reader_{os.getpid()}"
    at.store(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {reader} LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA sidelight TO {reader}")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA sidelight TO {reader}")
        try:
            at.use(url.replace("sidelight@", f"{reader}@"), at.spool)
            yield OK, "store", "1 event", 1
            yield WRONG, "store", "cannot be written: permission denied", 1
        finally:
            connection.execute(f"DROP OWNED BY {reader}")
            connection.execute(f"DROP ROLE {reader}")


@row
def a_server_that_is_down(at):
    at.use("postgresql://127.0.0.1:1/events", at.tmp / "spool")
    yield WRONG, "store", "refused", 1


@row
@given(("@", "@", "_not", "createdb NAME"), ("://", "://no_", "", "correct the user"))
def a_database_or_a_user_that_is_missing(at, old, new, more, words):
    at.use(new_database(own_server()).replace(old, new) + more, at.tmp / "spool")
    yield WRONG, "store", f"does not exist → .*{words}", 1


@row
@given("LATIN1", "SQL_ASCII")
def a_database_of_another_encoding(at, encoding):
    url = new_database(own_server(), encoding)
    told = FIRST.replace("assert", "assert not") if encoding == "LATIN1" else FIRST
    script = f"sidelight.emit('sent', artifact_id='漢字 €', text='漢字')\n{told}"
    emit(script, url, **at.use(url, at.tmp / "spool"))
    if encoding == "SQL_ASCII":
        yield WELL
    else:
        yield WRONG, "store", "has the encoding LATIN1: events with .* are refused → .*'UTF8'", 1
        yield WRONG, "losses", "refused by store", 1


@row
def an_artifact_id_of_two_organizations(at):
    named = [(1, "acme"), (1, "globex"), (2, "acme")]
    at.store(of(at.path)[1], *(record(artifact=id, organization=name) for id, name in named))
    yield (
        WRONG,
        "artifacts",
        r"^1 artifact id used by several organizations \(1\): .* → make ids",
        1,
    )


@row
def an_outbox_that_nobody_drains(at):
    script = """
        from sqlalchemy import create_engine
        from sidelight.outbox import table
        from sqlalchemy import MetaData
        engine = create_engine(os.environ["SHOP"])
        metadata = MetaData()
        table(metadata)
        metadata.create_all(engine)

        @emits("order_placed", transaction=arg.connection, artifact_id=arg.order)
        def place(connection, order):
            return order

        with engine.begin() as connection:
            assert place(connection, "order-1")
        """
    shop = f"sqlite:///{at.tmp / 'shop.db'}"
    waits = FIRST.replace("assert", "assert not")  # the rows of an outbox that no relay drains
    emit(f"{textwrap.dedent(script)}{waits}", at.path, SHOP=shop)
    at.monkeypatch.setattr("sidelight.cli.doctor.outboxes.PATIENCE", 0)
    command = "`sidelight relay --outbox .* --store .*events"
    waiting = f"1 event waits, the oldest for .*: no relay drains it → {command}"
    at.monkeypatch.setenv("SIDELIGHT_OUTBOXES", shop)
    yield WRONG, "outbox", waiting, 1
    at.monkeypatch.delenv("SIDELIGHT_OUTBOXES")
    at.options = (*at.options, "--outbox", shop)
    yield WRONG, "outbox", waiting, 1
    os_access = os.access
    with at.monkeypatch.context() as patched:
        patched.setattr(
            "sidelight.transactions.outbox.position.os.access",
            lambda path, mode: mode != os.W_OK and os_access(path, mode),
        )
        yield (
            WRONG,
            "outbox",
            "moves events: .* is not writable → let the relay's",
            1,
        )
    yield NOTE, "outbox", f"journal mode delete: .* → `sidelight outbox create {shop}` puts", 1
    sidelight("relay", "--once", *of(at.path), "--outbox", shop)
    yield OK, "outbox", "0 events wait", 1
    deleting = "AFTER INSERT ON orders BEGIN DELETE FROM sidelight_outbox; END"
    with contextlib.closing(sqlite3.connect(shop.removeprefix("sqlite:///"))) as business:
        business.execute("CREATE TABLE orders (id)")
        business.execute(f"CREATE TRIGGER tidy {deleting}")
    yield (
        WRONG,
        "outbox",
        r"deletes rows of sidelight_outbox \(tidy on orders\).* → drop the tri",
        1,
    )
    at.options = (*of(at.path), "--outbox", f"sqlite:///{at.tmp / 'other.db'}")
    sqlite3.connect(at.tmp / "other.db").close()
    yield (
        WRONG,
        "outbox",
        "there is no table sidelight_outbox → `sidelight outbox create sqlite:///.*other.db`",
        1,
    )


@row
def a_store_that_is_pruned_by_a_wrong_clock(at):
    """What occurs before the day of the pruning is refused, until the day is taken back."""
    at.first()
    now = time.time_ns
    with at.monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now() + 365 * DAY)
        said = sidelight("prune", "--older-than", "50d", "--trust-clock", *of(at.path))
    assert said.code == 0, said.err
    emit('receive("late")\nassert not sidelight.flush(60)', at.path)
    yield (
        WRONG,
        "losses",
        "older than the store keeps: .* → check the clocks; .*--keep-since DAY",
        1,
    )
    yield WRONG, "quarantine", "1 entry: older than the store keeps", 1
    day = datetime.now(UTC).date().isoformat()
    assert sidelight("prune", "--keep-since", day, *of(at.path)).code == 0
    assert sidelight("spool", "replay", *at.options).code == 0
    yield OK, "store", "1 event", 1


@row
def earlier_events_of_an_artifact_are_still_given_their_organization(at):
    """The store stands for nobody meanwhile."""
    at.monkeypatch.setattr("sidelight.store.ingest.STEP", 20)
    url = of(at.path)[1]
    at.store(url, *(record(artifact="big", at=NOON + n, bits=n) for n in range(100)))
    at.store(url, record(artifact="big", organization="acme", at=NOON + 200))
    with Store(url) as opened:
        assert any(event.organization_id is None for event in opened.events())
    yield WELL


@row
def a_store_that_can_only_be_read(at):
    """A copy in a place that cannot be written answers; a relay could not write there."""
    at.first()
    os_access = os.access
    at.monkeypatch.setattr(
        "sidelight.cli.doctor.store.os.access",
        lambda path, mode: mode != os.W_OK and os_access(path, mode),
    )
    yield OK, "store", "1 event", 1
    yield WRONG, "store", f"{at.path} is not writable → let the relay's user write there", 1


@row
@given(
    ("not joined: no outbox table", "correct what the problem names"),
    ("not joined: database too slow", "correct what the problem names"),
    ("outbox not drained: sqlite:////srv/shop.db", "name the outbox in configure"),
    ("commit without an answer", "use transaction="),
)
def a_transaction_that_tells_nothing(at, reason, remedy):
    at.store(of(at.path)[1], record(), ledger({reason: 2}, at=time.time_ns()))
    yield WRONG, "losses", f"^{reason}: 2 times in 1 process, .* → {remedy}", 1


@row
def costs_of_more_points_than_a_record_holds(at):
    """They come in several records, so that a loss beside them is told."""
    script = """
        import random
        from sidelight.emission import EMITTER
        receive("first")
        for n in range(250):
            costs = EMITTER.costs_of(f"shop.api:handler_{n}")
            for _ in range(200):
                costs.add(int(random.lognormvariate(8.3, 2)))
        EMITTER.count("not recorded", "among many points")
        assert not sidelight.flush(60)
        sidelight.flush(60)
        """
    emit(script, at.path)
    yield WRONG, "losses", "^not recorded: 1 time .*among many points", 1
    assert "quarantine" not in {each["check"] for each in findings(*at.options)[0]}


@row
def an_outbox_that_lies_elsewhere(at):
    """The database that the doctor was told of has no outbox; then it has one in a schema."""
    at.first()
    url = new_database(own_server())
    at.options = (*of(at.path), "--outbox", url)
    yield WRONG, "outbox", "sidelight_outbox → `sidelight outbox create", 1
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA shop")
    assert sidelight("outbox", "create", f"{url}?options=-csearch_path%3Dshop").code == 0
    yield OK, "outbox", "0 events wait", 0


@row
@given("SELECT", "SELECT, DELETE")
def an_outbox_of_which_a_relay_may_move_nothing(at, rights):
    """It is told before an event waits, and then with the number of those that wait."""
    at.first()
    url, role = new_database(own_server()), f"relay_{os.getpid()}"
    assert sidelight("outbox", "create", url).code == 0
    lacks = "UPDATE" if "DELETE" in rights else "UPDATE and DELETE"
    refused = rf"no relay with this URL moves events: its role lacks {lacks} on .* → grant it"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"GRANT {rights} ON sidelight_outbox TO {role}")
        try:
            relay = url.replace("sidelight@", f"{role}@")
            at.options = (*of(at.path), "--outbox", relay)
            yield WRONG, "outbox", f"0 events wait, and {refused}", 1
            connection.execute("INSERT INTO sidelight_outbox VALUES (1, 'x', '')")
            yield WRONG, "outbox", f"1 event waits, and {refused}", 1
            status = sidelight("outbox", "status", relay)
            assert status.code == 0
            assert "no relay with this URL moves events" in status.err
            connection.execute(f"GRANT UPDATE, DELETE ON sidelight_outbox TO {role}")
            assert sidelight("outbox", "status", relay).err == ""
        finally:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")


# -- the Collector ---------------------------------------------------------------------------


@contextlib.contextmanager
def answering(**statuses):
    """The URL of a server that answers each signal with a status; and the list of requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.path, self.headers["Content-Type"]))
            self.send_response(statuses.get(self.path.rpartition("/")[2], 200))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@row
def a_collector_that_accepts(at):
    at.first()
    with answering() as (url, asked):
        at.options = (*at.options, "--otlp", url)
        yield WELL
    assert asked[:2] == [
        ("/v1/traces", "application/x-protobuf"),
        ("/v1/logs", "application/x-protobuf"),
    ]


@row
def a_collector_that_refuses_one_signal_and_does_not_know_the_other(at):
    at.first()
    with answering(traces=403, logs=404) as (url, _):
        at.options = (*at.options, "--otlp", url)
        yield WRONG, "otlp", "traces to .*: it answered 403", 1
        yield NOTE, "otlp", "logs to .*: it takes no log records .* → OTEL_LOGS_EXPORTER=none", 1


@row
@given("http/protobuf", "grpc")
def no_collector(at, protocol):
    at.first()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
    at.monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", nowhere)
    at.monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    yield WRONG, "otlp", f"traces to {nowhere} by {protocol}: .* → start the Collector", 1


@row
@given(
    ("refuse", r"(Connection refused|refused|cannot be reached)"),
    ("reset", r"(reset|abort|without response)"),
    ("silent", r"(no answer|timed out|deadline|in time)"),
    (302, "302"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
)
def a_collector_behind_a_bad_network(at, trouble, words):
    at.first()
    with Proxy(mode="refuse") as proxy:
        if isinstance(trouble, int):
            proxy.answer(trouble, {"Location": proxy.endpoint} if trouble == 302 else {})
        else:
            proxy.mode = trouble
        at.options = (*at.options, "--otlp", proxy.endpoint)
        began = time.monotonic()
        yield WRONG, "otlp", f"traces to .* by http/protobuf: .*{words}.* → .* stay in the spool", 1
        assert time.monotonic() - began < 20
        yield WRONG, "otlp", f"logs to .* by http/protobuf: .*{words}", 1


@row
def a_collector_that_accepts_only_a_part(at):
    with Proxy(mode="refuse") as proxy:
        proxy.answer_partial_success(1, "too old")
        body = 'receive("second")\nassert sidelight.flush(20)'
        emit(body, at.path, OTEL_EXPORTER_OTLP_ENDPOINT=proxy.endpoint)
    yield WRONG, "losses", "spans rejected by the OTLP endpoint: 1 time in 1 process.*too old", 1


# -- disks and limits ------------------------------------------------------------------------


@row
@given((), ("--ready",))
def a_disk_that_is_full_and_then_read_only(at, *how):
    at.first()
    disk = at.stack.enter_context(small_disk(at.tmp / "disk", 80))
    at.spool = disk.path / "spool"
    at.options = (*of(at.path), "--spool", at.spool, *how)
    yield WELL
    disk.fill(leave=40 * 1024 * 1024)
    yield WELL if how else (WRONG, "disk", "only .* MB are free .* → make room there", 1)
    disk.fill(leave=500_000)
    yield WRONG, "spool", r"the disk of \S+ is full: only .* are free: .* die with their process", 1
    disk.make_room()
    yield WELL
    with disk.read_only():
        yield WRONG, "spool", "is on a read-only filesystem: records are kept in memory", 1
    at.spool.mkdir()
    with disk.read_only():
        yield WRONG, "spool", "it is on a read-only filesystem", 1


@row
@given("file", "unwritable")
def a_spool_that_cannot_be_written(at, kind):
    at.first()
    at.spool = at.tmp / "spool"
    if kind == "file":
        at.spool.write_text("not a directory")
    else:
        at.spool.mkdir(mode=0o500)
        if os.access(at.spool, os.W_OK):
            pytest.skip("this user may write everywhere")
    at.options = (*of(at.path), "--spool", at.spool)
    yield WRONG, "spool", rf"^{at.spool}.* → .*set SIDELIGHT_SPOOL", 1


@row
@given(0o777, 0o770)
def a_spool_that_others_may_write(at, mode):
    at.first()
    at.spool.chmod(mode)
    yield WRONG, "spool", f"can be written by other users: .* → chmod 700 {at.spool}", 1
    at.spool.chmod(0o700)
    yield WELL


@row
def a_spool_in_the_memory_of_a_process(at):
    """A file lies where the directory should be; the process has told the store."""
    at.first()
    at.spool = at.tmp / "spool"
    at.spool.write_text("in the way")
    script = f"receive('second')\n{WAITS}"
    at.stack.enter_context(running(script, at.path, SIDELIGHT_SPOOL=str(at.spool)))
    at.options = (*of(at.path), "--spool", at.spool)
    yield WRONG, "losses", "kept in memory: .* 1 time in 1 process.* → make room for", 1
    yield WRONG, "spool", "is not a directory: records are kept in memory", 1


@row
def a_spool_that_is_nearly_full(at):
    """As with hundreds of processes that nobody relays; spans make room for events."""
    at.first()
    script = """
        sidelight.configure(relay="external", spool_limit=16 * 1024 * 1024)
        from pathlib import Path
        spool = Path(os.environ["SIDELIGHT_SPOOL"])
        while sum(each.stat().st_size for each in spool.glob("*.segment")) < 15 * 1024 * 1024:
            receive("order", size="x" * 20_000)
        print("nearly full", flush=True)
        sys.stdin.readline()
        """
    with running(script, at.path, SIDELIGHT_SPOOL=str(at.spool)) as child:
        yield WRONG, "spool", r"of the 16\.8 MB that it may: spans are left out → ", 1
        child.communicate("\n")
    sidelight("relay", "--once", *at.options)
    yield WELL


@row
def a_spool_at_its_limit(at):
    at.first()
    script = """
        from sidelight.emission.emitter import EMITTER
        sidelight.configure(relay="external", spool_limit=8 * 1024 * 1024)
        while not EMITTER.losses:
            receive("order", size="x" * 2000)
        print("full", flush=True)
        sys.stdin.readline()
        """
    with running(script, at.path) as child:
        yield WRONG, "spool", r"holds 8\.\d+ MB of the 8\.39 MB that it may: .* events are lost", 1
        assert sidelight("doctor", "--ready", *at.options).code == 0
        child.communicate("\n")
    sidelight("relay", "--once", *at.options)
    yield WRONG, "losses", "no room in the spool: .* → free the disk, raise spool_limit", 1
    assert "that it may" not in sidelight("doctor", *at.options).out


@row
def a_disk_that_does_not_flush(at):
    at.first()
    shim = Shim(at.tmp)
    shim.fail("sync", errno.EIO, under=at.spool)
    script = """
        receive("second")
        from sidelight.emission.emitter import EMITTER
        until = time.monotonic() + 20
        while not EMITTER.losses and time.monotonic() < until:
            time.sleep(0.05)
        assert sidelight.flush(60)
        """
    emit(script, at.path, **shim.environment)
    yield WRONG, "losses", "not power-safe: .*Input/output error → read the system's log", 1


@row
def a_directory_that_cannot_be_read(at):
    at.first()

    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    at.monkeypatch.setattr("sidelight.cli.doctor.spool.read_spool", forbidden)
    yield WRONG, "spool", f"cannot read {at.spool} → ask the owner for access", 1


# -- damage, clocks, values, refusals --------------------------------------------------------


@row
def damage(at):
    emit(KILLED, at.path, ends=signal.SIGKILL)
    (file,) = at.spool.glob("*.segment")
    content = bytearray(file.read_bytes())
    content[8000:8010] = b"xxxxxxxxxx"
    content[:4096] = os.urandom(4096)
    file.write_bytes(content)
    yield WRONG, "spool", r"\d+ bytes in the segments are damaged: .* quarantines them", 1
    yield WRONG, "spool", "1 segment with a damaged header, which names no writer", 1
    sidelight("relay", "--once", *at.options)
    yield (
        WRONG,
        "quarantine",
        "1 entry: damaged stretch .*; the latest .* `sidelight spool quaran",
        1,
    )
    yield (
        WRONG,
        "losses",
        f"damaged stretch of the spool: 1 time .* `sidelight spool replay --store sqlite:///{at.path}`",
        1,
    )
    sidelight("spool", "discard", "--all", *at.options)
    assert "quarantine" not in {each["check"] for each in findings(*at.options)[0]}


@row
def a_file_that_is_named_like_a_segment(at):
    at.first()
    (at.spool / "zzz-1.segment").write_bytes(os.urandom(70_000))
    words = "1 file with the name of a segment, .*zzz-1.segment → move it out of the spool"
    yield WRONG, "spool", words, 1
    assert len([each for each in findings(*at.options)[0] if each["state"] == WRONG]) == 1


@row
@needs_linux
def a_spool_on_a_filesystem_without_files(at):
    at.first()
    at.options = (*of(at.path), "--spool", "/proc/foo")
    yield WRONG, "spool", "/proc lies on proc, which keeps no files: records are kept in memory", 1
    at.options += ("--ready",)
    yield WRONG, "spool", "/proc lies on proc, which keeps no files: records are kept in memory", 1


@row
def a_clock_that_was_stepped(at):
    shim = Shim(at.tmp)
    shim.set_clock(3600)
    emit(KILLED, at.path, ends=signal.SIGKILL, **shim.environment)
    yield WRONG, "clock", "the spool holds records from (1 h|59 min.*) in the future", 1
    sidelight("relay", "--once", *at.options)
    yield WRONG, "clock", "the latest event occurs in (1 h|59 min.*): the clock of", 1


@row
def values_that_cannot_be_captured(at):
    script = """
        class Hostile:
            def __getattr__(self, name):
                raise RuntimeError("hostile")

        @emits("order_sent", artifact_id=arg.order.id)
        def send(order):
            return None

        send(Hostile())
        receive("large", size="x" * 1_000_000)
        assert sidelight.flush(60)
        """
    emit(script, at.path)
    yield WRONG, "losses", "field .* not captured: 1 time .*hostile.* → correct the field's", 1


@row
def a_loss(at):
    script = """
        from sidelight.emission.emitter import EMITTER
        EMITTER.count("no room in the spool", "the disk is full")
        assert not sidelight.flush(60)  # tells of the loss, once
        """
    emit(f"{textwrap.dedent(script)}{FIRST}", at.path)
    yield (
        WRONG,
        "losses",
        "^no room in the spool: 1 time in 1 process, reported .*the disk is full → free the disk",
        1,
    )


@row
@given("assert not sidelight.flush(60)", "")
def a_record_that_the_store_refuses(at, last):
    """The loss is counted, too, where the process has ended meanwhile."""
    at.first()
    made, gone = rule(at.options[1], "events", "NEW.artifact_id = 'poison'", name="not_welcome")
    alter(at.options[1], made)
    emit(f'receive("poison")\nreceive("good")\n{last}', at.path)
    end(spawn("relay", "--once", *at.options))
    yield WRONG, "quarantine", "1 entry: refused by store; the latest", 1
    yield WRONG, "losses", "refused by store: 1 time .*not_welcome → `sidelight spool", 1
    alter(at.options[1], gone)
    assert sidelight("spool", "replay", *at.options).code == 0
    yield NOTE, "losses", "not_welcome; the quarantine holds none of them any more → $", 0
    yield WELL


@row
@given(*((backend, table) for backend in BACKENDS for table in ("event_counts", "events")))
def a_store_that_refuses_everything(at, backend, table):
    """A rule on the counters is the fault of no record, nor is a rule that refuses every event."""
    url = BACKENDS[backend](at.tmp)
    made, gone = rule(url, table)
    script = f"""{FIRST}
print("ready", flush=True)
sys.stdin.readline()
for n in range(50):
    receive(f"order-{{n}}")
sys.stdin.readline()
"""
    environment = at.use(url, at.tmp / "spool")
    child = at.stack.enter_context(running(script, url, **environment))
    alter(url, made)
    child.stdin.write("\n")
    child.stdin.flush()
    yield WRONG, "backlog", "the store does not take them: .*not_now.* → correct what refuses", 1
    assert stored(url) == 1
    alter(url, gone)
    yield OK, "backlog", "no record waits", 0
    aside = sidelight("spool", "quarantined", *at.options, "--json").json
    assert stored(url) + len(aside) == 51


@row
def a_change_that_the_store_skips_without_an_error(at):
    """An earlier event does not get the organization of its artifact."""
    script = f"""{FIRST}
{WAITS}
receive("first", "north")
sys.stdin.readline()
"""
    child = at.stack.enter_context(running(script, at.path))
    keep = "CREATE TRIGGER keep BEFORE UPDATE ON events BEGIN SELECT RAISE(IGNORE); END"
    alter(at.options[1], keep)
    child.stdin.write("\n")
    child.stdin.flush()
    skipped = "1 row of events skipped without an error; look for a trigger"
    refused = f"the store does not take them: {skipped}.* → correct what refuses them"
    yield WRONG, "backlog", f"which is running: {refused}", 1
    child.kill()
    child.wait()
    yield (
        WRONG,
        "backlog",
        f"which has ended: {refused}; `sidelight relay --once --store {at.options[1]}` delivers",
        1,
    )
    alter(at.options[1], "DROP TRIGGER keep")
    sidelight("relay", "--once", *at.options)
    yield OK, "backlog", "no record waits", 0


@row
def rows_that_no_relay_writes(at):
    told = ledger({"made up": 1}, {"shop:make": snapshot(1)}, time.time_ns())
    at.store(of(at.path)[1], record(at=NOON), record(at=NOON + 1), told)
    with contextlib.closing(sqlite3.connect(at.path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for column, order in (("outcome", "ASC"), ("attributes", "DESC")):
            one = f"(SELECT event_id FROM events ORDER BY event_id {order} LIMIT 1)"
            connection.execute(f"UPDATE events SET {column} = 'odd' WHERE event_id = {one}")
        connection.execute("UPDATE costs SET histogram = 'odd'")
        connection.execute("UPDATE losses SET count = 'odd'")
        connection.commit()
    words = r"^4 rows cannot be read, because no relay writes such rows"
    yield WRONG, "store", rf"{words} \(1 in costs, 2 in events, 1 in losses\) → ", 1


@row
def a_record_that_sidelight_does_not_write(at):
    at.first()
    segment_in(at.spool, f"sqlite:///{at.path}", [PAYLOADS["less deep attributes"]])
    words = (
        "^1 record in the segments cannot be read: sidelight writes no such records → "
        f"`sidelight relay --once --store sqlite:///{at.path}` quarantines"
    )
    yield WRONG, "spool", words, 1
    sidelight("relay", "--once", *at.options)
    yield WRONG, "quarantine", r"^1 entry: unreadable record; ", 1


@row
def events_of_what_was_erased(at):
    emit(FIRST + "\nreceive('kept')", at.path)
    assert sidelight("erase", "--artifact", "first", "--yes", *of(at.path)).code == 0
    emit("receive('first')\nsidelight.flush(60)", at.path)
    sidelight("relay", "--once", *at.options)
    yield NOTE, "losses", "^erased: 1 time .* → stop the processes that still emit", 0
    yield WELL


@row
@given((0, OK, 0), (2, OK, 0), (5, NOTE, 0), (30, WRONG, 1))
def emissions_over_the_budget(at, over, state, code):
    costs = {"__main__:receive": snapshot(*[1_000] * 100, *[25_000_000] * over)}
    at.store(of(at.path)[1], record(), ledger(costs=costs, at=time.time_ns()))
    most = r" \(fewer than 3 may be chance\)" if over == 2 else ""
    most = most if state == OK else ".* most of them at __main__:receive,"
    yield state, "budget", rf"\d+ of \d+ emissions .*took over 10 ms{most}", code


@row
def a_point_that_emits_nothing(at):
    """A framework that registers functions may have kept the one below the decorator."""
    at.first()
    words = r"^1 point has emitted nothing although its module emits \(__main__:pack\) → "
    yield NOTE, "points", words, 0


@row
def a_point_that_only_the_children_of_a_pool_call(at):
    """In a child by *spawn* the main module has another name."""
    script = """
        from sidelight.emission import EMITTER
        receive("first")
        EMITTER.costs_of("__mp_main__:pack").add(1000)
        assert sidelight.flush(60)
        """
    emit(script, at.path)
    yield OK, "budget", r"\d of 2 emissions took over 10 ms", 0
    assert "points" not in {each["check"] for each in findings(*at.options)[0]}


@row
def instrumentation_that_is_switched_off(at):
    at.first()
    at.monkeypatch.setenv("SIDELIGHT_DISABLED", "1")
    yield NOTE, "switches", "SIDELIGHT_DISABLED=1: nothing is emitted → unset it", 0
    at.monkeypatch.setenv("SIDELIGHT_DISABLED", "false")
    assert "switches" not in {each["check"] for each in findings(*at.options)[0]}


# -- the table is run ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("filled")
    emit(FIRST, directory / "events.db")
    return directory


@pytest.mark.parametrize("scenario", ROWS)
def test_the_doctor_names_state_and_remedy(scenario, filled, tmp_path, monkeypatch):
    monkeypatch.setattr("sidelight.cli.doctor.backlog.PATIENCE", 0)
    with contextlib.ExitStack() as stack:
        at = Place(tmp_path, stack, monkeypatch, filled)
        for expected in scenario(at):
            try:
                wait_for(lambda e=expected: reports(e, *at.options), 60)
            except AssertionError as error:
                raise AssertionError(f"{expected}: {findings(*at.options)}") from error


def test_no_line_in_a_pipe_ends_with_spaces(tmp_path):
    (tmp_path / "events.db-spool").mkdir()
    (tmp_path / "events.db-spool" / "zzz-1.segment").write_bytes(b"x" * 70_000)
    for columns in (100, 1000):
        said = sidelight("doctor", *of(tmp_path / "events.db"), columns=columns).out
        assert "→" in said
        assert [line for line in said.splitlines() if line != line.rstrip()] == []


@needs_linux
def test_words_on_a_terminal(tmp_path, monkeypatch):
    path = tmp_path / "events.db"
    emit(TWO_ORDERS, path)
    said = sidelight("doctor", *of(path))
    assert said.code == 0
    assert re.search(r"^✓ store +sqlite:\S+ ?: +6 events, the latest", said.words)
    assert said.out.endswith("\nall is well\n")
    with monkeypatch.context() as patch:
        patch.setenv("SIDELIGHT_DISABLED", "1")
        said = sidelight("doctor", *of(path))
    assert (said.code, said.out.splitlines()[-1]) == (0, "nothing is wrong; 1 note above")
    said = sidelight("doctor", *of(tmp_path / "none.db"))
    assert said.code == 1
    assert re.search(r"^✗ store +there is no store at .* → run something that emits", said.words)
    assert said.out.endswith("\n1 thing is wrong\n")


def test_readiness_asks_neither_store_nor_collector(tmp_path):
    spool = tmp_path / "spool"
    nowhere = ("--store", "postgresql://127.0.0.1:1/events", "--otlp", "http://127.0.0.1:1")
    said = sidelight("doctor", "--ready", *nowhere, "--spool", spool)
    assert (said.code, "ready:" in said.words, spool.exists()) == (0, True, False)
    spool.write_text("a file")
    (finding,), code = findings("--ready", *nowhere, "--spool", spool)
    assert (code, finding["state"]) == (1, "wrong")
    assert "is not a directory" in finding["message"]


def test_readiness_is_quick(tmp_path):
    """Measured as processor time, because a busy machine does not change that."""
    before = os.times()
    assert end(spawn("doctor", "--ready", *of(tmp_path / "events.db"))).code == 0
    after = os.times()
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 1.0


def test_an_outbox_that_is_missing_needs_no_password(tmp_path):
    """Only the segments of a process with an external relay name it, and without its password."""
    database = tmp_path / "shop.db"
    database.touch()
    (finding,) = check_outboxes([], [f"sqlite:///{database}"])
    assert finding.state == "note"
    assert "sidelight outbox create" in finding.remedy
