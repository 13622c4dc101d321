"""Rows 27 to 30: what is refused or rolled back is told as that, by receipt, `flush` and losses."""

import subprocess
import sys
import threading
import time

import psycopg
import pytest
from tests.support import business
from tests.support.balance import balance
from tests.support.commands import of, sidelight
from tests.support.postgres import new_database
from tests.support.programs import deliver
from tests.support.receipts import TELLS, Told

import sidelight as library
from sidelight import Store
from sidelight.store.retention import Pruner


def told_by(program, *arguments, path):
    """Run a program that writes its receipts to a file; return what it was told."""
    command = [sys.executable, "-c", TELLS + program, *map(str, arguments), str(path)]
    subprocess.run(command, check=True, timeout=120)
    return Told.read([path])


FOREIGN = """
import sys
import sidelight
sidelight.configure(sys.argv[1], spool=sys.argv[2], otlp=False)
for n in range(20):
    tell(sidelight.emit("plain", artifact_id="a", n=n))
    tell(sidelight.emit("kanji", artifact_id="漢字 €", n=n))
write(sys.argv[3], flushed=sidelight.flush(60))
"""


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_of_another_encoding(encoding, tmp_path, row):
    store = new_database(encoding=encoding)
    told = told_by(FOREIGN, store, tmp_path / "spool", path=tmp_path / "told")
    assert told.flushed is (encoding == "SQL_ASCII")
    assert sum(state == "refused" for _, state in told.receipts) == 20 * (encoding == "LATIN1")
    row.of_receipts(25, f"encoding {encoding}", store, told, injected=20)


LATE = """
import sys
import sidelight
sidelight.configure(sys.argv[1], otlp=False)
for n in range(30):
    tell(sidelight.emit("late", artifact_id="a", n=n))
write(sys.argv[2], flushed=sidelight.flush(60))
"""


def test_a_store_that_was_pruned_by_a_wrong_clock(store, tmp_path, row, monkeypatch):
    """Later events are refused; when the mark is taken back they are delivered again."""
    told_by(LATE, store, path=tmp_path / "earlier")
    now = time.time_ns
    with monkeypatch.context() as patch, Pruner(store) as pruner:
        patch.setattr(time, "time_ns", lambda: now() + 365 * 86_400 * 10**9)
        for _ in pruner.run(pruner.plan("30d", trust_clock=True)):
            pass
    told = told_by(LATE, store, path=tmp_path / "told")
    assert {state for _, state in told.receipts} == {"refused"}
    assert told.flushed is False
    row.of_receipts(26, "pruned by a wrong clock", store, told, injected=1)
    assert sidelight("prune", "--keep-since", "2020-01-01", *of(store)).code == 0
    assert sidelight("spool", "replay", *of(store)).code == 0
    with Store(store) as opened:
        stored = {event.event_id for event in opened.events()}
    assert {event_id for event_id, _ in told.receipts} <= stored


BUSY = """
import random, sys
import sidelight
from sidelight.emission import EMITTER
from sidelight.exceptions import SpoolError

class Full:
    def write(self, frame):
        raise ValueError
    def append(self, frame):
        raise SpoolError(directory="d", problem="it is full", remedy="none")
    def position(self):
        return (0, 0)

sidelight.configure(sys.argv[1], otlp=False)
for point in range(300):
    costs = EMITTER.costs_of(f"shop.api:handler_{point}")
    costs.add(0)
    for bucket in random.Random(point).sample(range(1024), 500):
        costs.fine[bucket] += 1000
for n in range(100):
    tell(sidelight.emit("event", artifact_id="a", n=n))
spool, EMITTER.spool = EMITTER.spool, Full()
for n in range(7):
    tell(sidelight.emit("event", artifact_id="a", n=n))
EMITTER.spool = spool
write(sys.argv[2], flushed=sidelight.flush(60))
"""


def test_a_ledger_larger_than_a_record(store, tmp_path, row):
    told = told_by(BUSY, store, path=tmp_path / "told")
    assert told.flushed is False
    deliver(store)
    row.of_receipts(27, "ledger of 300 busy points", store, told, injected=7)
    assert "the quarantine is empty" in sidelight("spool", "quarantined", *of(store)).err


@pytest.mark.parametrize("join", business.JOINS)
def test_transactions_that_cannot_be_serialized(join, store, tmp_path, full, row):
    url = new_database()
    business.create_tables(url)
    library.configure(store, outboxes=[url], otlp=False, deadline=1.0)
    failures, each = [], 40 if full else 8

    def order(worker):
        with psycopg.connect(url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            for n in range(each):
                while True:
                    try:
                        connection.execute("SELECT count(*) FROM orders")
                        name = f"{worker}-{n}"
                        connection.execute("INSERT INTO orders (name) VALUES (%s)", (name,))
                        library.emit("ordered", n=name, **{join: connection})
                        connection.commit()
                        break
                    except psycopg.errors.SerializationFailure:
                        failures.append(name)
                        connection.rollback()

    threads = [threading.Thread(target=order, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert library.flush(60)
    finally:
        library.runtime.process.RUNTIME.close(5.0)
    with Store(store) as opened:
        found = sorted(event.attributes["n"] for event in opened.events())
        counted = sum(loss.count for loss in opened.losses())
    committed = business.committed(url)
    row(
        28,
        f"serialization failures, {join}",
        injected=len(failures),
        verdict=balance(committed, found, counted=counted),
    )
    assert found == sorted(committed)
    assert failures
