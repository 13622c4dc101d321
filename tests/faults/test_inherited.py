"""Row 12: what a child inherits without a word: numbers of descriptors, mappings, a generator."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support import business, postgres
from tests.support.balance import balance
from tests.support.commands import sidelight
from tests.support.otlp_server import OtlpServer
from tests.support.receipts import TELLS, Told

from sidelight import Store
from sidelight.store.write_lock import WriteLock
from sidelight.transactions.outbox.position import read_position

#: ``damaged(files, content)`` lists the files that do not hold what was written, or are closed.
DAMAGED = """
import os

def damaged(files, content):
    found = []
    for file in files:
        try:
            if os.pread(file.fileno(), 2 * len(content), 0) != content:
                found.append(file.name)
        except OSError as error:
            found.append(f"{file.name}: {error}")
    return found
"""
DAEMON = """
import json, os, sys, time
import sidelight
from sidelight.runtime import RUNTIME

directory, forks, emits_before = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
sidelight.configure(f"sqlite:///{directory}/events.db", otlp=False)
for _ in range(10):
    tell(sidelight.emit("before", artifact_id="a"))
assert sidelight.flush()
time.sleep(0.5)  # the relay allocates spares
for _ in range(forks):
    if child := os.fork():
        os.waitpid(child, 0)
        os._exit(0)
if emits_before:
    tell(sidelight.emit("child", artifact_id="a"))
    assert sidelight.flush(60)
delivers = emits_before or not forks
if delivers:
    RUNTIME.relay.halt(5.0)  # a thread inside a call may close a file that gets its number
os.closerange(3, 256)
files = [open(f"{directory}/business-{n}", "w+b", buffering=0) for n in range(40)]
if delivers:
    RUNTIME.relay.start()
for file in files:
    file.write(b"B" * 2_000_000)
for n in range(300):
    tell(sidelight.emit("daemon", artifact_id="a", n=n))
    time.sleep(0.002)
time.sleep(0.5)
write(f"{directory}/told", damaged=damaged(files, b"B" * 2_000_000))
os._exit(0)
"""


def deliver(directory, *options):
    """Deliver what the processes have left; return the URL of the store."""
    url = f"sqlite:///{directory / 'events.db'}"
    done = sidelight("relay", "--once", "--store", url, *options)
    assert done.code == 0, done.err
    return url


@pytest.mark.parametrize(
    ("forks", "emits_before"),
    [(0, False), (1, False), (1, True), (2, True)],
    ids=["in place", "idle", "emitting", "twice"],
)
def test_a_daemon_keeps_its_files_and_its_events(forks, emits_before, tmp_path, row):
    command = [
        sys.executable,
        "-c",
        TELLS + DAMAGED + DAEMON,
        str(tmp_path),
        str(forks),
        str(emits_before),
    ]
    subprocess.run(command, check=True, timeout=120)
    told = Told.read([tmp_path / "told"])
    assert told.more == [{"damaged": []}]
    row.of_receipts(12, f"daemon, {forks} forks", deliver(tmp_path), told, injected=forks)


READING_DAEMON = """
import gc, sys
import sidelight

directory, store_is = sys.argv[1:]
url = f"sqlite:///{directory}/events.db"
sidelight.configure(url, otlp=False)
for n in range(10):
    tell(sidelight.emit("before", n=n))
assert sidelight.flush(60)
store = sidelight.Store(url)
assert len(list(store.events())) == 10
if os.fork():
    os.wait()
    os._exit(0)
os.setsid()
os.closerange(3, 256)
files = [open(f"{directory}/business-{n}", "w+b", buffering=0) for n in range(40)]
for file in files:
    file.write(b"B" * 100_000)
if store_is == "collected":
    del store
    gc.collect()
for n in range(5):
    tell(sidelight.emit("daemon", n=n))
sidelight.flush(2.0)
write(f"{directory}/told", damaged=damaged(files, b"B" * 100_000))
os._exit(0)
"""


@pytest.mark.parametrize("store_is", ["open", "collected"])
def test_a_daemon_that_inherits_an_open_reader_keeps_its_files_and_its_events(
    store_is, tmp_path, row
):
    command = [sys.executable, "-c", TELLS + DAMAGED + READING_DAEMON, str(tmp_path), store_is]
    subprocess.run(command, check=True, timeout=120)
    told = Told.read([tmp_path / "told"])
    assert told.more == [{"damaged": []}]
    assert len(told.receipts) == 15
    row.of_receipts(12, f"daemon, {store_is} Store", deliver(tmp_path), told, injected=1)


PEERS = """
import json, os, socket, sys
import sidelight
from sidelight import arg, emits
from sidelight.runtime import RUNTIME

directory, store, endpoint = sys.argv[1:]


def configure():
    sidelight.configure(store, outboxes=[store], otlp=endpoint, spool=f"{directory}/spool")


@emits("called", n=arg.n)
def call(n): ...


configure()
call(0)
assert sidelight.flush(60)
RUNTIME.relay.halt(5.0)  # a thread inside a call may close a socket that gets its number
os.closerange(3, 256)
pairs = [socket.socketpair() for _ in range(40)]
RUNTIME.relay.start()
for n in range(1, 20):
    tell(sidelight.emit("daemon"))
    call(n)
flushed = sidelight.flush(60)
configure()  # closes what was open
damaged = []
for each in [end for pair in pairs for end in pair]:
    try:
        damaged.append(each.recv(100, socket.MSG_DONTWAIT).decode("latin-1"))
    except BlockingIOError:
        pass
write(f"{directory}/told", flushed=flushed, damaged=damaged)
os._exit(0)
"""


def test_a_daemon_that_closes_descriptors_in_place_keeps_its_connections(tmp_path, row):
    store = postgres.new_database()
    business.create_tables(store)
    with OtlpServer("http/protobuf") as server:
        program = [sys.executable, "-c", TELLS + PEERS, str(tmp_path), store, server.endpoint]
        traces_only = {**os.environ, "OTEL_LOGS_EXPORTER": "none"}
        subprocess.run(program, check=True, timeout=120, env=traces_only)
        assert sorted(server.numbers) == list(range(20))
    told = Told.read([tmp_path / "told"])
    assert told.more == [{"damaged": []}]
    assert told.flushed
    row.of_receipts(12, "sockets closed in place", store, told, others=20, injected=1)


OUTBOX_DAEMON = """
import json, os, sys, time
import sidelight
from sqlalchemy import create_engine, insert
from sqlalchemy.orm import Session
from tests.support import business
from tests.support.receipts import TELLS, Told

directory, shop, reuses = sys.argv[1], sys.argv[2], sys.argv[3] == "reused"
sidelight.configure(f"sqlite:///{directory}/events.db", outboxes=[shop], otlp=False)


def order(name, commits=True):
    engine = create_engine(shop)
    with Session(engine) as session:
        session.execute(insert(business.Order).values(name=name))
        sidelight.emit("ordered", n=name, transaction=session)
        session.commit() if commits else session.rollback()
    engine.dispose()


order("first")
assert sidelight.flush(60)
time.sleep(1.2)  # a position that was missing is looked for again
order("second")
assert sidelight.flush(60)
if os.fork():
    os.wait()
    os._exit(0)
os.setsid()
os.closerange(3, 256)
files = [open(f"{directory}/business-{n}", "w+b", buffering=0) for n in range(40 * reuses)]
for file in files:
    file.write(b"B" * 1000)
for n in range(3):
    order(f"committed-{n}")
    order(f"rolled-back-{n}", commits=False)
assert sidelight.flush(60)
order("last")
damaged = [file.name for file in files if os.pread(file.fileno(), 2000, 0) != b"B" * 1000]
with open(f"{directory}/told", "w") as told:
    json.dump(damaged, told)
os._exit(0)
"""


@pytest.mark.parametrize("numbers", ["reused", "free"])
def test_a_daemon_joins_its_outbox(numbers, tmp_path, row):
    shop = business.DATABASES["sqlite"](tmp_path)
    business.create_tables(shop)
    command = [sys.executable, "-c", OUTBOX_DAEMON, str(tmp_path), shop, numbers]
    subprocess.run(command, check=True, timeout=120)
    assert json.loads((tmp_path / "told").read_text()) == []
    with Store(deliver(tmp_path, "--outbox", shop)) as store:
        stored = [event.attributes["n"] for event in store.events()]
    committed = business.committed(shop)
    row(12, f"daemon with an outbox, {numbers}", injected=1, verdict=balance(committed, stored))
    assert set(stored) == committed
    assert read_position(shop.removeprefix("sqlite:///")).event_id


def open_files():
    """The paths of the files that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return found


def test_the_lock_of_a_store_is_open_only_while_it_is_held(tmp_path):
    path = tmp_path / "store"
    with WriteLock(path):
        child = os.fork()
        if not child:  # it has the file open, and outlives the lock
            time.sleep(60)
            os._exit(0)
        with pytest.raises(TimeoutError), WriteLock(path):
            pass
        assert open_files().count(f"{path}.lock") == 1
    with WriteLock(path):
        pass
    assert f"{path}.lock" not in open_files()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


C_FORKS = """
import ctypes, json, os, sys, time
import sidelight
from sidelight import arg, emits
from sidelight.runtime import RUNTIME

directory, relay, span = sys.argv[1], sys.argv[2], sys.argv[3] == "span"
sidelight.configure(f"sqlite:///{directory}/events.db", relay=relay, otlp=False)


@emits("worked", artifact_id=arg.worker, n=arg.n, span=span)
def work(worker, n):
    tell(sidelight.emit("emitted", artifact_id=worker, n=n))


for n in range(10):
    work("parent", n)
if relay == "thread":
    assert sidelight.flush()
    # A thread that waits for the GIL at such a fork can hang any child, in the interpreter itself.
    RUNTIME.relay.halt(5.0)
fork = ctypes.PyDLL(None).fork  # it keeps the GIL, as the master of an application server does
children = []
for worker in range(4):
    if (child := fork()) == 0:
        receipts.clear()
        for n in range(100):
            work(f"worker-{worker}", n)
            time.sleep(0.001)
        write(f"{directory}/told-{worker}")
        os._exit(0)
    children.append(child)
if relay == "thread":
    RUNTIME.relay.start()
for n in range(10, 100):
    work("parent", n)
for child in children:
    os.waitpid(child, 0)
write(f"{directory}/told-parent")
"""


@pytest.mark.parametrize("span", ["span", "no span"])
@pytest.mark.parametrize("relay", ["thread", "external"])
def test_children_of_a_fork_without_hooks_share_nothing(relay, span, tmp_path, row):
    command = [sys.executable, "-c", TELLS + C_FORKS, str(tmp_path), relay, span]
    subprocess.run(command, check=True, timeout=120)
    told = Told.read(sorted(tmp_path.glob("told-*")))
    assert len(told.receipts) == 500
    url = deliver(tmp_path)
    fault = f"fork in C, relay {relay}, {span}"
    row.of_receipts(12, fault, url, told, injected=4, others=500)
    with Store(url) as store:
        worked = [(e.artifact_id, e.attributes["n"]) for e in store.events() if e.type == "worked"]
    assert len(worked) == len(set(worked)) == 500
