"""What `sidelight doctor` says of each trouble of the fault table, while it lasts."""

import contextlib
import errno
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from tests.support.commands import (
    EMITTER,
    KILLED,
    Living,
    emit,
    end,
    of,
    sidelight,
    spawn,
    stored,
    wait_for,
)
from tests.support.disks import small_disk
from tests.support.postgres import Postgres, binaries, new_database, own_server
from tests.support.proxy import Proxy
from tests.support.rules import alter, rule
from tests.support.shim import Shim
from tests.support.stored import BACKENDS

from sidelight import Store

FIRST = 'receive("first")\nassert sidelight.flush()'


@pytest.fixture
def path(tmp_path):
    """A store with one event."""
    path = tmp_path / "events.db"
    emit(FIRST, path)
    return path


@pytest.fixture
def impatient(monkeypatch):
    """Records should be delivered at once."""
    monkeypatch.setattr("sidelight.cli.doctor.backlog._PATIENCE", 0)


def doctor(path, *arguments):
    return sidelight("doctor", *arguments, *of(path), columns=300)


def doctor_at(*there):
    return sidelight("doctor", *there, columns=300)


def says(said, check, state, words):
    """Whether a finding has these words."""
    symbol = {"ok": "✓", "note": "!", "wrong": "✗"}[state]
    findings = re.split(r"^(?=[✓!✗])", said.out, flags=re.MULTILINE)
    assert any(
        each.startswith(f"{symbol} {check} ") and re.search(words, " ".join(each.split()))
        for each in findings
    ), said.out
    assert said.code == (1 if "✗" in said.out else 0)
    return True


# -- rows 1, 2 and 18: processes that have ended ---------------------------------------------


def test_the_dead(path):
    emit(KILLED, path, ends=signal.SIGKILL, OTEL_SERVICE_NAME="shop")
    said = doctor(path)
    says(said, "backlog", "wrong", r"store: 500 records .*, of shop \d+, which has ended →")
    says(said, "backlog", "wrong", "`sidelight relay --once` delivers them")
    sidelight("relay", "--once", *of(path))
    says(doctor(path), "backlog", "ok", "every sink has what there is")


# -- row 3: several processes, one paused, other namespaces ----------------------------------


def test_a_process_that_is_paused(path, impatient):
    living = Living(path)
    try:
        living.emit(1)
        pid = living.process.pid
        living.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: "which is stopped (SIGSTOP)" in doctor(path).words)
        said = doctor(path)
        says(said, "backlog", "wrong", rf"of process {pid}, which is stopped .* kill -CONT {pid}")
        living.process.send_signal(signal.SIGCONT)
        wait_for(lambda: "SIGSTOP" not in doctor(path).words)
    finally:
        living.kill()


def test_a_relay_that_is_paused(path):
    relay = spawn("relay", *of(path))
    living = Living(path)
    try:
        relay.stderr.readline()
        wait_for(lambda: "of 2 running processes" in doctor(path).words)
        relay.send_signal(signal.SIGSTOP)
        wait_for(lambda: "is stopped" in doctor(path).words)
        says(doctor(path), "relay", "wrong", rf"relay {relay.pid} is stopped .* kill -CONT")
    finally:
        living.kill()
        relay.send_signal(signal.SIGCONT)
        relay.terminate()
        end(relay)


def test_a_process_in_another_pid_namespace_is_alive(path, impatient):
    script = """
sidelight.configure(relay="external")
receive("x")
print(os.getpid(), flush=True)
time.sleep(60)
"""
    child = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", EMITTER + script],
        env={**os.environ, "SIDELIGHT_STORE": f"sqlite:///{path}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        pid = child.stdout.readline().strip()
        if not pid:
            pytest.skip(f"no pid namespaces here: {child.stderr.read()}")
        assert int(pid) < 10
        says(doctor(path), "backlog", "wrong", rf"of process {pid}, which is running: no relay")
    finally:
        child.kill()
        child.communicate()
    wait_for(lambda: "which has ended" in doctor(path).words)


def test_a_living_process_without_its_relay(path, impatient):
    living = Living(path)
    try:
        says(doctor(path), "relay", "note", r"none runs, and process \d+ would leave it all to one")
        living.emit(1)
        said = doctor(path)
        says(said, "backlog", "wrong", "which is running: no relay reads them → start `sidelight")
        relay = spawn("relay", *of(path))
        try:
            wait_for(lambda: stored(path) == 2)
            said = doctor(path)
            says(said, "backlog", "ok", "")
            assert "! relay" not in said.out
        finally:
            relay.terminate()
            end(relay)
    finally:
        living.kill()


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


def test_a_relay_that_is_late(path, impatient):
    """The relay of a process whose threads are busy delivers, only not at once."""
    busy = subprocess.Popen(
        [sys.executable, "-c", EMITTER + BUSY],
        env={**os.environ, "SIDELIGHT_STORE": f"sqlite:///{path}"},
        stdout=subprocess.PIPE,
    )
    try:
        busy.stdout.readline()
        wait_for(lambda: stored(path) > 1)
        said = []
        wait_for(lambda: said.append(doctor(path)) or "but late" in said[-1].words, 60)
        says(said[-1], "backlog", "note", "are being delivered, but late → .* a relay of its own")
    finally:
        busy.kill()
        busy.communicate()


# -- rows 4 and 5: stores frozen and killed --------------------------------------------------


def test_a_sqlite_file_that_is_locked(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        said = doctor(path)
        says(said, "store", "wrong", r"cannot be written: database is locked .*fuser")
        other.execute("ROLLBACK")
    assert doctor(path).code == 0


@pytest.fixture
def postgres():
    """A server that may be frozen and killed."""
    running = own_server()
    yield running
    running.resume()
    if not running.is_alive():
        running.start()


def test_a_postgresql_that_is_frozen_killed_and_well_again(postgres, tmp_path):
    url, spool = new_database(postgres), tmp_path / "spool"
    emit(FIRST, spool, SIDELIGHT_STORE=url, SIDELIGHT_SPOOL=str(spool))
    options = ("doctor", "--store", url, "--spool", spool)
    assert sidelight(*options).code == 0
    postgres.pause()
    began = time.monotonic()
    said = sidelight(*options, columns=300)
    assert time.monotonic() - began < 30
    says(said, "store", "wrong", "timeout")
    postgres.resume()
    wait_for(lambda: sidelight(*options).code == 0)
    postgres.kill()
    says(sidelight(*options, columns=300), "store", "wrong", "onnection refused")
    postgres.start()
    assert sidelight(*options).code == 0


def test_a_standby(postgres, tmp_path):
    url, spool = new_database(postgres), tmp_path / "spool"
    emit(FIRST, spool, SIDELIGHT_STORE=url, SIDELIGHT_SPOOL=str(spool))
    standby = Postgres(binaries(), *postgres._options)
    try:
        data = standby.directory / "data"
        copied = standby._run(
            "pg_basebackup", "-D", data, "-d", postgres.url("postgres"), "-R", "-cfast"
        )
        assert copied.wait(60) == 0, standby._told()
        standby.start()
        theirs = standby.url(url.rpartition("/")[2])
        said = sidelight("doctor", "--store", theirs, "--spool", spool, columns=300)
        says(said, "store", "ok", "1 event")
        says(said, "store", "wrong", "cannot be written: .*recovery.* relay to the primary server")
    finally:
        standby.close()


# -- row 6: the network to the Collector -----------------------------------------------------

NETWORK = {
    "refuse": r"(Connection refused|refused|cannot be reached)",
    "reset": r"(reset|abort|without response)",
    "silent": r"(no answer|timed out|deadline|in time)",
    302: "302",
    429: "429",
    500: "500",
    503: "503",
}


@pytest.mark.parametrize("trouble", NETWORK)
def test_a_collector_behind_a_bad_network(path, trouble):
    with Proxy(mode="refuse") as proxy:
        if isinstance(trouble, int):
            proxy.answer(trouble, {"Location": proxy.endpoint} if trouble == 302 else {})
        else:
            proxy.mode = trouble
        began = time.monotonic()
        said = doctor(path, "--otlp", proxy.endpoint)
        assert time.monotonic() - began < 20
        says(said, "otlp", "wrong", f"traces to .* by http/protobuf: .*{NETWORK[trouble]}")
        says(said, "otlp", "wrong", f"logs to .* by http/protobuf: .*{NETWORK[trouble]}")
        says(said, "otlp", "wrong", "until then all is kept")


def test_a_collector_that_takes_a_part_only(path):
    with Proxy(mode="refuse") as proxy:
        proxy.answer_partial_success(1, "too old")
        emit(
            'receive("second")\nassert sidelight.flush(20)',
            path,
            OTEL_EXPORTER_OTLP_ENDPOINT=proxy.endpoint,
        )
    said = doctor(path)
    says(
        said, "losses", "wrong", "spans rejected by the OTLP endpoint: 1 time in 1 process.*too old"
    )


# -- rows 7, 8 and 9: disks ------------------------------------------------------------------


def test_a_disk_that_is_full_and_read_only(path, tmp_path):
    with small_disk(tmp_path / "disk", 80) as disk:
        spool = disk.path / "spool"
        there = ("--spool", spool)
        assert doctor(path, *there).code == 0
        assert doctor(path, "--ready", *there).code == 0
        disk.fill(leave=40 * 1024 * 1024)
        says(doctor(path, *there), "disk", "wrong", "only .* MB are free")
        assert doctor(path, "--ready", *there).code == 0
        disk.fill(leave=500_000)
        said = doctor(path, *there)
        says(
            said, "spool", "wrong", r"the disk of \S+ is full: only .* are free: what is emitted is"
        )
        said = doctor(path, "--ready", *there)
        says(said, "spool", "wrong", "dies with its process → make room there")
        disk.make_room()
        assert doctor(path, *there).code == 0
        with disk.read_only():
            for arguments in (there, ("--ready", *there)):
                said = doctor(path, *arguments)
                says(
                    said, "spool", "wrong", "is on a read-only filesystem: what is emitted is kept"
                )
        spool.mkdir()
        with disk.read_only():
            says(doctor(path, *there), "spool", "wrong", "it is on a read-only filesystem")


def test_a_spool_in_the_memory_of_a_living_process(path, tmp_path):
    """Somebody has put a file where the directory would be; the process has told the store."""
    spool = tmp_path / "spool"
    spool.write_text("in the way")
    child = subprocess.Popen(
        [sys.executable, "-c", EMITTER + "receive('second')\nsys.stdin.readline()"],
        env={
            **os.environ,
            "SIDELIGHT_STORE": f"sqlite:///{path}",
            "SIDELIGHT_SPOOL": str(spool),
        },
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        wait_for(lambda: "kept in memory" in doctor(path).words)
        said = doctor(path, "--spool", spool)
        says(said, "losses", "wrong", "kept in memory: .* 1 time in 1 process.* → make room for")
        says(said, "spool", "wrong", "is not a directory: what is emitted is kept in memory")
    finally:
        child.communicate(b"\n")


BOUND = """
from sidelight.emission.emitter import EMITTER
sidelight.configure(relay="external", spool_limit=8 * 1024 * 1024)
while not EMITTER.losses:
    receive("order", size="x" * 2000)
print("full", flush=True)
sys.stdin.readline()
"""


def test_a_spool_at_its_bound(path):
    child = subprocess.Popen(
        [sys.executable, "-c", EMITTER + BOUND],
        env={**os.environ, "SIDELIGHT_STORE": f"sqlite:///{path}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout.readline() == b"full\n"
        said = doctor(path)
        says(
            said,
            "spool",
            "wrong",
            r"holds 8\.\d+ MB of the 8\.39 MB that it may: .* events are lost",
        )
        assert sidelight("doctor", "--ready", *of(path)).code == 0
    finally:
        child.communicate(b"\n")
    sidelight("relay", "--once", *of(path))
    said = doctor(path)
    says(said, "losses", "wrong", "no room in the spool: .* → free the disk, raise spool_limit")
    assert "that it may" not in said.out


def test_a_disk_that_does_not_flush(path, tmp_path):
    shim = Shim(tmp_path)
    spool = path.with_name("events.db-spool")
    shim.fail("sync", errno.EIO, under=spool)
    script = """
        receive("second")
        from sidelight.emission.emitter import EMITTER
        until = time.monotonic() + 20
        while not EMITTER.losses and time.monotonic() < until:
            time.sleep(0.05)
        assert sidelight.flush()
        """
    emit(script, path, **shim.environment)
    says(doctor(path), "losses", "wrong", "not power-safe: .*Input/output error")


# -- row 10: damage --------------------------------------------------------------------------


def test_damage(path):
    emit(KILLED, path, ends=signal.SIGKILL)
    (file,) = path.with_name("events.db-spool").glob("*.segment")
    content = bytearray(file.read_bytes())
    content[8000:8010] = b"xxxxxxxxxx"
    content[:4096] = os.urandom(4096)
    file.write_bytes(content)
    said = doctor(path)
    says(said, "spool", "wrong", r"\d+ bytes of the segments are no records any more")
    says(said, "spool", "wrong", "1 segment whose damaged header does not say whose it is")
    sidelight("relay", "--once", *of(path))
    said = doctor(path)
    says(said, "quarantine", "wrong", "1 entry: damaged stretch .* `sidelight spool quarantined`")
    says(
        said, "losses", "wrong", "damaged stretch of the spool: 1 time .* `sidelight spool replay`"
    )
    sidelight("spool", "discard", "--all", *of(path))
    assert "quarantine" not in doctor(path).out.replace("quarantined", "")


# -- row 11: the clock -----------------------------------------------------------------------


def test_a_clock_that_was_stepped(path, tmp_path):
    shim = Shim(tmp_path)
    shim.set_clock(3600)
    emit(KILLED, path, ends=signal.SIGKILL, **shim.environment)
    said = doctor(path)
    says(said, "clock", "wrong", "the spool holds what was written (1 h|59 min.*) in the future")
    sidelight("relay", "--once", *of(path))
    said = doctor(path)
    says(said, "clock", "wrong", "the latest event occurs in (1 h|59 min.*): the clock of")


# -- rows 13 to 17: what is lost for want of a good value, and what is refused ----------------


def test_values_that_cannot_be_captured(path):
    emit(
        """
        class Hostile:
            def __getattr__(self, name):
                raise RuntimeError("hostile")

        @emits("order_sent", artifact_id=arg.order.id)
        def send(order):
            return None

        send(Hostile())
        receive("large", size="x" * 1_000_000)
        assert sidelight.flush()
        """,
        path,
    )
    said = doctor(path)
    says(said, "losses", "wrong", "field .* not captured: 1 time .*hostile → correct the field's")


@pytest.mark.parametrize("last", ["assert sidelight.flush()", ""], ids=["before", "at the end"])
def test_a_record_that_the_store_refuses(path, last):
    """It is counted too where the process has ended meanwhile."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "CREATE TRIGGER no BEFORE INSERT ON events WHEN NEW.artifact_id = 'poison'"
            " BEGIN SELECT RAISE(ABORT, 'not welcome'); END"
        )
    emit(f'{FIRST}\nreceive("poison")\nreceive("good")\n{last}', path)
    end(spawn("relay", "--once", *of(path)))
    said = doctor(path)
    says(said, "quarantine", "wrong", "1 entry: refused by store; the latest")
    says(said, "losses", "wrong", "refused by store: 1 time .* not welcome → `sidelight spool")


WAITS = """
receive("first")
assert sidelight.flush()
print("ready", flush=True)
sys.stdin.readline()
for n in range(50):
    receive(f"order-{n}")
sys.stdin.readline()
"""


@pytest.mark.parametrize("table", ["event_counts", "events"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_store_that_takes_none_of_them(backend, table, tmp_path, impatient):
    """A rule on the counters is no record's fault, nor is one that no event meets."""
    url, spool = BACKENDS[backend](tmp_path), tmp_path / "spool"
    there = ("--store", url, "--spool", spool)
    made, gone = rule(url, table)
    child = subprocess.Popen(
        [sys.executable, "-c", EMITTER + WAITS],
        env={**os.environ, "SIDELIGHT_STORE": url, "SIDELIGHT_SPOOL": str(spool)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "ready\n"
        alter(url, made)
        child.stdin.write("\n")
        child.stdin.flush()
        said = []
        wait_for(lambda: said.append(doctor_at(*there)) or "does not take" in said[-1].words)
        says(said[-1], "backlog", "wrong", "the store does not take them: .*not_now.* → put right")
        with Store(url) as store:
            assert store.size() == 1
        alter(url, gone)
        wait_for(lambda: "every sink has what there is" in doctor_at(*there).words)
        aside = sidelight("spool", "quarantined", *there, "--json").json
        with Store(url) as store:
            assert store.size() + len(aside) == 51
    finally:
        child.communicate("\n")


# -- the budget ------------------------------------------------------------------------------

SLOW = """
from sidelight.emission.emitter import EMITTER
for n in range(100):
    receive(f"order-{n}")
for _ in range(OVER):
    EMITTER.costs_of("__main__:receive").add(25_000_000)
assert sidelight.flush()
"""


@pytest.mark.parametrize(("over", "state"), [(0, "ok"), (5, "note"), (30, "wrong")])
def test_emissions_that_held_their_callers_up(path, over, state):
    emit(SLOW.replace("OVER", str(over)), path)
    said = doctor(path)
    says(
        said, "budget", state, r"\d+ of \d+ emissions .*took over 10 ms"
    )  # a busy machine adds some
    assert (state == "ok") != ("most of them at __main__:receive," in said.words)


# -- readiness -------------------------------------------------------------------------------


def test_readiness_asks_neither_store_nor_collector(tmp_path):
    nowhere = "postgresql://127.0.0.1:1/events"
    options = ("--store", nowhere, "--otlp", "http://127.0.0.1:1", "--spool", tmp_path / "spool")
    said = sidelight("doctor", "--ready", *options)
    assert said.code == 0, said
    assert "ready:" in said.words
    assert not (tmp_path / "spool").exists()
    (tmp_path / "spool").write_text("a file")
    said = sidelight("doctor", "--ready", "--json", *options)
    assert said.code == 1
    assert said.json[0]["state"] == "wrong"
    assert "is not a directory" in said.json[0]["message"]


def test_readiness_is_quick(path):
    """Measured as processor time, so that a busy machine does not tell against it."""
    before = os.times()
    process = spawn("doctor", "--ready", *of(path))
    assert end(process).code == 0
    after = os.times()
    spent = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    assert spent < 1.0
