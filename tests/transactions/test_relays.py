"""From the outbox to the store: by several relays at once, and never at the business's expense."""

import contextlib
import errno
import itertools
import shutil
import signal
import sqlite3
import threading
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.orm import Session
from tests.support import business
from tests.support.commands import end, of, printed, sidelight, spawn, stored, wait_for
from tests.support.emitting import Order
from tests.support.postgres import new_database
from tests.support.preludes import padded
from tests.support.programs import running
from tests.support.rules import alter
from tests.support.stored import record
from tests.support.stored import store as in_store
from tests.support.telemetry import restore

import sidelight as library
from sidelight.emission import EMITTER
from sidelight.emission.waiting import Watermark
from sidelight.exceptions import OutboxError
from sidelight.relay.outbox_mover import Mover
from sidelight.relay.relay import Relay
from sidelight.settings import public_url
from sidelight.spool.supply import SMALLEST
from sidelight.spool.writer import Spool
from sidelight.store import StoreSink
from sidelight.transactions import outbox_status
from sidelight.transactions.outbox.position import PositionFile
from sidelight.transactions.outbox.postgres import PostgresOutbox
from sidelight.transactions.outbox.same_database import SameDatabaseOutbox
from sidelight.transactions.outbox.sqlite import SqliteOutbox

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    return business.shop(request.param, tmp_path)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "events.db"


@pytest.fixture
def external(store):
    """This process only emits; others relay."""
    library.configure(f"sqlite:///{store}", relay="external", otlp=False, deadline=1.0)
    yield
    restore()


@pytest.fixture
def application(url, external):
    application = business.WithSession(url, "transaction")
    yield application
    application.close()


@contextlib.contextmanager
def relaying(url, *stores):
    """A relay for each store's spool, each a separate process."""
    relays = [
        spawn("relay", *of(path), "--spool", f"{path}-spool-{n}", "--outbox", url)
        for n, path in enumerate(stores)
    ]
    try:
        yield relays
    finally:
        for relay in relays:
            relay.terminate()
            end(relay)


def order_many(application, count, start=0, each=20, padding=""):
    for first in range(start, start + count, each):
        with Session(application.engine) as session:
            for n in range(first, first + each):
                application.order(session, f"order {n}{padding}")
            session.commit()


def waiting(url):
    return outbox_status(url).waiting


# -- the command line --------------------------------------------------------------------------


def test_a_question_makes_no_file(tmp_path):
    url = f"sqlite:///{tmp_path / 'misspelt.db'}"
    for command in (["outbox", "status", url], ["doctor", "--outbox", url]):
        told = sidelight(*command)
        assert "there is no such file" in told.out + told.err
        assert "check the path" in told.out + told.err
    assert not [*tmp_path.glob("misspelt*")]


def test_an_outbox_is_made_once(request, tmp_path):
    (tmp_path / "shop.db").touch()
    for url in (f"sqlite:///{tmp_path / 'shop.db'}", new_database()):
        missing = sidelight("outbox", "status", url)
        assert missing.code == 1
        assert "`sidelight outbox create " in missing.err
        assert "created" in sidelight("outbox", "create", url).out
        assert "exists already" in sidelight("outbox", "create", url).out
        assert "0 events waiting" in sidelight("outbox", "status", url).out
        assert sidelight("outbox", "status", url, "--json").json[0]["waiting"] == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_remedy_of_an_outbox_names_its_database(tmp_path):
    """Typed as it is, without a password."""
    store = f"sqlite:///{tmp_path / 'events.db'}"
    server = new_database()
    sqlite3.connect(tmp_path / "my shop.db").close()
    secret = server.replace("sidelight@", "sidelight:geheim@")
    for outbox, shown in (
        (SqliteOutbox(tmp_path / "my shop.db"), f"sqlite:///{tmp_path / 'my shop.db'}"),
        (PostgresOutbox(secret), server.replace("sidelight@", "sidelight:***@")),
        (SameDatabaseOutbox(PostgresOutbox(secret), StoreSink(store), {}), None),
    ):
        with pytest.raises(OutboxError) as met:
            outbox.move(lambda _: None, 1)
        (command,) = printed(str(met.value))
        assert command == ["outbox", "create", shown or outbox.shown]
        outbox.close()
    down = PostgresOutbox("postgresql://u:geheim@127.0.0.1:1/d")
    with pytest.raises(OutboxError) as met:
        down.move(lambda _: None, 1)
    assert printed(str(met.value)) == [["outbox", "status", "postgresql://u:***@127.0.0.1:1/d"]]


def test_what_waits_is_told_and_delivered(application, url, store):
    order_many(application, 40)
    assert "40 events waiting, the oldest occurred" in sidelight("outbox", "status", url).out
    done = sidelight("relay", "--once", *of(store), "--outbox", url)
    assert done.code == 0, done.err
    assert "outbox" in done.out
    assert stored(store) == 40
    assert waiting(url) == 0


def test_a_spool_that_the_dead_have_filled_is_emptied_first(application, url, store):
    """Only then is there room for what comes out of the outbox."""
    many = 1_000  # more than a segment takes
    order_many(application, many, each=250, padding="x" * 2000)
    limit = {"relay": "external", "spool_limit": 8 * SMALLEST}
    order = Order(kinds=("scheduled",), configure=limit, prelude=padded(40))
    with running(f"sqlite:///{store}", order=order) as program:
        program.emit(300)
        program.kill()
    assert program.reports.lost
    done = sidelight("relay", "--once", *of(store), "--outbox", url)
    assert done.code == 0, done.err
    assert waiting(url) == 0
    assert stored(store) == many + len(program.reports.numbers)


def keep_rows(url, verb, when):
    """A trigger that skips a DELETE or an UPDATE of rows; returns the end of it."""
    if url.startswith("sqlite"):
        then = f"WHEN {when} BEGIN SELECT RAISE(IGNORE); END"
        alter(url, f"CREATE TRIGGER keep BEFORE {verb} ON sidelight_outbox {then}")
        return "DROP TRIGGER keep"
    alter(
        url,
        "CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RETURN NULL; END $$",
        f"CREATE TRIGGER keep BEFORE {verb} ON public.sidelight_outbox FOR EACH ROW"
        f" WHEN ({when}) EXECUTE FUNCTION public.keep()",
    )
    return "DROP FUNCTION public.keep CASCADE"


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("place", ["another database", "same database"])
def test_a_row_that_cannot_be_deleted_is_told_and_waits(application, url, store, place):
    """Else a relay would deliver it again and again; the other rows are delivered."""
    order_many(application, 20)
    with psycopg.connect(url) as connection:
        query = "SELECT event_id FROM sidelight_outbox LIMIT 1"
        (event_id,) = connection.execute(query).fetchone()
    end_trigger = keep_rows(url, "DELETE", f"OLD.event_id = '{event_id}'")
    to = f"sqlite:///{store}" if place == "another database" else url
    arguments = ("relay", "--once", "--store", to, "--spool", f"{store}-spool", "--outbox", url)
    done = sidelight(*arguments)
    assert done.code == 1, done
    assert "sidelight_outbox cannot be deleted; look for a trigger" in done.err
    with library.Store(to) as opened:
        assert opened.size() == 19
    assert waiting(url) == 1
    alter(url, end_trigger)
    assert sidelight(*arguments).code == 0
    with library.Store(to) as opened:
        assert opened.size() == 20


def test_a_row_that_cannot_be_erased_is_told(application, url, store):
    order_many(application, 5, each=5)
    in_store(f"sqlite:///{store}", [record()])
    end_trigger = keep_rows(url, "UPDATE", "OLD.event_id <> ''")
    arguments = ("erase", "--artifact", "4", *of(store), "--outbox", url, "--yes")
    said = sidelight(*arguments)
    assert said.code == 1, said
    assert "sidelight_outbox cannot be updated; look for a trigger" in said.err
    alter(url, end_trigger)
    assert sidelight(*arguments).code == 0


def test_a_trigger_of_another_table_that_deletes_rows_is_named(url):
    """By its text, because such a row looks to a relay as if it had been rolled back."""
    assert outbox_status(url).deleting_triggers == []
    then = "DELETE FROM sidelight_outbox;"
    if url.startswith("sqlite"):
        alter(url, f"CREATE TRIGGER tidy AFTER INSERT ON orders BEGIN {then} END")
    else:
        then = then.replace("FROM ", "FROM public.")
        alter(
            url,
            "CREATE FUNCTION public.tidy() RETURNS trigger LANGUAGE plpgsql"
            f" AS $$ BEGIN {then} RETURN NULL; END $$",
            "CREATE TRIGGER tidy AFTER INSERT ON public.orders EXECUTE FUNCTION public.tidy()",
        )
    assert outbox_status(url).deleting_triggers == ["tidy on orders"]


def test_an_outbox_that_is_not_there_is_told(tmp_path, store):
    url = f"sqlite:///{tmp_path / 'nowhere.db'}"
    done = sidelight("relay", "--once", *of(store), "--outbox", url)
    assert done.code == 1
    assert "nowhere.db" in done.err


def test_another_journal_mode_is_told(tmp_path):
    path = tmp_path / "shop.db"
    url = f"sqlite:///{path}"
    sidelight("outbox", "create", url)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    assert "journal mode is delete" in sidelight("outbox", "status", url).err


# -- several at once ---------------------------------------------------------------------------


def test_several_relays_share_the_work(application, url, store):
    order_many(application, 600)
    with relaying(url, store, store, store):
        order_many(application, 400, start=600)
        wait_for(lambda: stored(store) >= 1000, 60)
    assert stored(store) == 1000
    assert waiting(url) == 0
    names = business.Watched(f"sqlite:///{store}").stored_names()
    assert names == business.committed(url)


def test_relays_that_are_killed_lose_nothing(application, url, store):
    order_many(application, 1000)
    for _ in range(2):
        with relaying(url, store) as (relay,):
            wait_for(lambda: relay.poll() is not None or stored(store) > 0)
            order_many(application, 200, start=business.count(url))
            relay.kill()
    assert sidelight("relay", "--once", *of(store), "--outbox", url).code == 0
    assert sidelight("relay", "--once", *of(store), "--spool", f"{store}-spool-0").code == 0
    names = business.Watched(f"sqlite:///{store}").stored_names()
    assert names == business.committed(url)


@contextlib.contextmanager
def held(url):
    """Hold the rows of an outbox, as a relay does that was stopped while it moved them."""
    if url.startswith("sqlite"):
        with PositionFile(url.removeprefix("sqlite:///")).locked() as is_locked:
            assert is_locked
            yield
    else:
        with psycopg.connect(url) as other:
            other.execute("SELECT 1 FROM sidelight_outbox FOR UPDATE")
            yield


def test_rows_that_another_relay_holds_are_told(application, url, store):
    order_many(application, 20)
    command = ("relay", "--once", *of(store), "--outbox", url)
    with held(url):
        done = sidelight(*command)
        assert done.code == 1
        assert f"outbox {public_url(url)}: another relay holds its events" in done.err
        (found,) = (each for each in sidelight(*command, "--json").json if "outbox" in each["sink"])
        assert "another relay" in found["problem"]
    assert waiting(url) == 20
    done = sidelight(*command)
    assert (done.code, stored(store), waiting(url)) == (0, 20, 0), done.err


def test_rows_that_another_relay_holds_for_a_moment_are_moved(application, url, store, monkeypatch):
    order_many(application, 20)
    with contextlib.ExitStack() as holding:
        holding.enter_context(held(url))
        monkeypatch.setattr("sidelight.relay.relay.sleep", lambda _: holding.close())
        done = sidelight("relay", "--once", *of(store), "--outbox", url)
    assert (done.code, stored(store), waiting(url)) == (0, 20, 0), done.err


# -- the same database -------------------------------------------------------------------------


def test_relays_of_the_stores_own_database_may_be_killed(tmp_path):
    """Together and one after the other: what one has claimed when it dies is still there."""
    url = business.shop("postgresql", tmp_path)
    library.configure(url, relay="external", spool=tmp_path / "spool", otlp=False)
    application = business.WithSession(url, "transaction")
    command = ("--store", url, "--outbox", url, "--spool")
    try:
        for number in range(2):
            order_many(application, 400, start=400 * number)
            relays = [spawn("relay", *command, tmp_path / f"spool-{n}") for n in range(2)]
            try:
                wait_for(lambda: waiting(url) < 400)
            finally:
                for relay in relays:
                    relay.kill()
                    relay.communicate()
        for spool in ("spool-0", "spool"):  # the program's has what the INSERT was too slow for
            done = sidelight("relay", "--once", *command, tmp_path / spool)
            assert done.code == 0, done.err
        assert waiting(url) == 0
        assert business.Watched(url).stored_names() == business.committed(url)
    finally:
        application.close()
        restore()


def test_in_the_stores_own_database_it_is_one_transaction(tmp_path):
    url = business.shop("postgresql", tmp_path)
    library.configure(url, outboxes=[url], spool=tmp_path / "spool", otlp=False)
    application = business.WithSession(url, "transaction")
    try:
        order_many(application, 1200)
        assert library.flush(20)
        assert business.Watched(url).stored_names() == business.committed(url)
        assert waiting(url) == 0
        # None of them went by the spool.
        with psycopg.connect(url) as connection:
            moved = connection.execute(
                "SELECT count(DISTINCT xmin::text) FROM sidelight.events"
            ).fetchone()
        assert moved[0] <= 1200 / 20 + 2
        assert "outbox" in " ".join(library.runtime.process.RUNTIME.health())
    finally:
        application.close()
        restore()


def test_an_outbox_that_nobody_drains_is_told(url, store, tmp_path):
    """An outbox that is missing in `outboxes`, or that another one replaces there."""
    (tmp_path / "other").mkdir()
    other = business.shop(url.partition(":")[0], tmp_path / "other")
    for outboxes, is_drained in (([], False), ([other], False), ([url], True)):
        library.configure(f"sqlite:///{store}", outboxes=outboxes, otlp=False, deadline=1.0)
        application = business.WithSession(url, "transaction")
        order_many(application, 1, start=len(outboxes) + 10 * is_drained, each=1)
        application.close()
        wait_for(lambda told=is_drained: library.flush(20) is told)
        reasons = [reason for reason in EMITTER.losses if "outbox not drained" in reason]
        assert bool(reasons) is not is_drained
        wait_for(lambda: "outbox not drained" in sidelight("doctor", *of(store)).out)
        EMITTER.losses.clear()
        restore()


def test_where_there_is_no_table_nothing_waits(tmp_path, store):
    """An event that cannot join goes to the spool, and `flush` waits for nothing else."""
    for url in (business.sqlite(tmp_path), new_database()):
        engine = business.engine_on(url)
        business.Order.__table__.create(engine)
        engine.dispose()
        library.configure(f"sqlite:///{store}", outboxes=[url], otlp=False, deadline=1.0)
        application = business.WithSession(url, "transaction")
        try:
            order_many(application, 2, each=1)
            assert library.flush(60)
            health = library.runtime.process.RUNTIME.health()
            assert health[f"outbox {public_url(url)}"].problem
        finally:
            application.close()
            restore()
    assert stored(store) == 4


def test_an_outbox_that_another_relay_drains_is_not_told(url, store, monkeypatch):
    """The proof is an event that arrives; what has not arrived is not flushed."""
    for name in ("_GRACE", "_PATIENCE"):  # a relay takes long to begin on a busy machine
        monkeypatch.setattr(f"sidelight.runtime.forgotten.{name}", 60.0)
    library.configure(f"sqlite:///{store}", otlp=False, deadline=1.0)
    forgotten = library.runtime.process.RUNTIME._forgotten
    application = business.WithSession(url, "transaction")
    try:
        with relaying(url, store):
            order_many(application, 3, each=1)
            assert library.flush(60)
            forgotten._drained.clear()
            monkeypatch.setattr("sidelight.runtime.forgotten._GRACE", 0.0)
            forgotten.count_now_and_then()
        assert not EMITTER.losses
        order_many(application, 1, start=100, each=1)
        assert not library.flush(0.3)  # no relay drains it now
        assert not EMITTER.losses
    finally:
        application.close()
        restore()


def test_an_outbox_that_no_external_relay_drains_is_told_by_the_doctor(url, store, monkeypatch):
    """The process that names it asks no database: that would delay its end."""
    library.configure(
        f"sqlite:///{store}", outboxes=[url], relay="external", otlp=False, deadline=1.0
    )
    application = business.WithSession(url, "transaction")
    try:
        order_many(application, 1, each=1)
        monkeypatch.setattr("sidelight.cli.doctor.outboxes.PATIENCE", 0)
        said = sidelight("doctor", "--json", *of(store))  # which is not told of the outbox
        assert said.code == 1
        assert "1 event waits, the oldest for" in said.out
        named = sidelight("doctor", "--json", *of(store), "--outbox", url)
        assert named.out.count("1 event waits") == 1
        sidelight("relay", "--once", *of(store), "--outbox", url)
        assert "0 events wait" in sidelight("doctor", "--json", *of(store)).out
    finally:
        application.close()
        restore()


@pytest.mark.parametrize("place", ["elsewhere", "the same database"])
def test_a_flush_waits_for_rows_that_another_relay_has_locked(place, tmp_path):
    url = business.shop("postgresql", tmp_path)
    store = url if place == "the same database" else f"sqlite:///{tmp_path / 'events.db'}"
    settings = {"outboxes": [url], "otlp": False, "spool": tmp_path / "spool", "deadline": 1.0}
    library.configure(store, relay="external", **settings)
    application = business.WithSession(url, "transaction")
    try:
        order_many(application, 3, each=1)
        with psycopg.connect(url) as other:
            other.execute("SELECT 1 FROM sidelight_outbox FOR UPDATE")
            library.configure(store, **settings)
            assert not library.flush(1.0)
        assert library.flush(60)
        with library.Store(store) as opened:
            assert opened.size() == 3
    finally:
        application.close()
        restore()


FOREIGN = "INSERT INTO sidelight_outbox (position, event_id, record) VALUES (0, 'foreign', {})"
FOREIGN_RECORDS = {
    "too large": {
        "sqlite": "zeroblob(300000)",
        "postgresql": "decode(repeat('00', 300000), 'hex')",
    },
    "text": {"sqlite": "'text'", "postgresql": "'text'"},
}


@pytest.mark.parametrize("kind", FOREIGN_RECORDS)
def test_a_row_of_another_program_keeps_no_event_back(kind, application, url, store):
    order_many(application, 2, each=1)
    dialect = application.engine.dialect.name
    with application.engine.begin() as connection:
        connection.exec_driver_sql(FOREIGN.format(FOREIGN_RECORDS[kind][dialect]))
    done = sidelight("relay", "--once", *of(store), "--outbox", url)
    assert "unreadable record: 1 time" in done.err
    assert stored(store) == 2
    assert waiting(url) == 0
    assert "unreadable record" in sidelight("spool", "quarantined", *of(store)).out


@pytest.mark.parametrize("fails", ["always", "once"])
def test_a_spool_that_cannot_be_synced_gets_no_row_again_and_again(fails, tmp_path, monkeypatch):
    url = business.shop("sqlite", tmp_path)
    library.configure(f"sqlite:///{tmp_path / 'events.db'}", relay="external", otlp=False)
    application = business.WithSession(url, "transaction")
    order_many(application, 1, each=1)
    application.close()
    restore()
    spool = Spool(tmp_path / "spool", {"sinks": ["store"]})
    mover, synced = Mover(SqliteOutbox(tmp_path / "business.db"), spool, lambda: True), []

    def sync():
        synced.append(None)
        if fails == "always" or len(synced) == 1:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(spool, "sync", sync)
    before = spool.position()
    assert mover.step() is None
    assert spool.position() == before
    assert mover.step() == (None if fails == "always" else 1)
    assert (spool.position() == before) is (fails == "always")
    mover.outbox.close()
    spool.close()


# -- the business is not hurt ------------------------------------------------------------------


def test_a_relay_keeps_no_file_of_sqlite_open(tmp_path, store):
    """The business can change the journal mode, and replace the file."""
    url = business.shop("sqlite", tmp_path)
    library.configure(f"sqlite:///{store}", outboxes=[url], otlp=False, deadline=1.0)
    path = url.removeprefix("sqlite:///")
    application = business.WithSession(url, "transaction")
    try:
        order_many(application, 20)
        assert library.flush(20)
        application.close()
        opened = Path("/proc/self/fd")
        wait_for(lambda: not [fd for fd in opened.iterdir() if _is(fd, path)])
        with contextlib.closing(sqlite3.connect(path, timeout=5)) as connection:
            assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
            connection.execute("PRAGMA journal_mode = WAL")
        application = business.WithSession(url, "transaction")
        order_many(application, 20, start=20)
        assert library.flush(20)
        names = business.Watched(f"sqlite:///{store}").stored_names()
        assert names == business.committed(url)
    finally:
        application.close()
        restore()


def _left_by(path):
    return [f"{path}{suffix}" for suffix in ("-wal", "-shm") if Path(f"{path}{suffix}").exists()]


@pytest.mark.parametrize("how", ["thread", "--once"])
def test_a_relay_leaves_no_log_beside_a_sqlite_database_that_is_closed(how, tmp_path, store):
    """Each application that closes last leaves one file, which is then whole."""
    url = business.shop("sqlite", tmp_path)
    path = url.removeprefix("sqlite:///")
    relay = "external" if how == "--once" else how
    library.configure(f"sqlite:///{store}", outboxes=[url], relay=relay, otlp=False, deadline=1.0)
    application = business.WithSession(url, "transaction")
    try:
        order_many(application, 5, each=5)
        application.close()
        if how == "--once":
            assert sidelight("relay", "--once", *of(store), "--outbox", url).code == 0
        wait_for(lambda: stored(store) == 5)
        for _ in range(5):  # it stays so
            wait_for(lambda: _left_by(path) == [], 10)
            time.sleep(0.1)
        assert _left_by(path) == []
    finally:
        application.close()
        restore()


def test_a_log_that_stayed_because_a_relay_was_reading_is_put_into_the_file(tmp_path):
    """The application closes while a relay reads: the relay closes last."""
    url = business.shop("sqlite", tmp_path)
    path = Path(url.removeprefix("sqlite:///"))
    application = sqlite3.connect(path)
    application.execute("INSERT INTO orders (name) VALUES ('first')")
    application.commit()
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    reader.execute("SELECT * FROM orders").fetchall()
    application.close()
    reader.close()
    assert Path(f"{path}-wal").stat().st_size > 0
    outbox = SqliteOutbox(path)
    until = time.monotonic() + 10
    while _left_by(path) and time.monotonic() < until:
        assert outbox.move(lambda _: None, 10) in {0, None}
        time.sleep(0.05)
    outbox.close()
    assert _left_by(path) == []
    shutil.copy(path, tmp_path / "copy.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT name FROM orders").fetchall() == [("first",)]


def test_a_quiet_database_is_not_opened_again_and_again(tmp_path, monkeypatch):
    url = business.shop("sqlite", tmp_path)
    outbox, opened = SqliteOutbox(Path(url.removeprefix("sqlite:///"))), []
    real = outbox._opened
    monkeypatch.setattr(SqliteOutbox, "_opened", lambda *a: opened.append(a) or real(*a[1:]))
    until = time.monotonic() + 1
    while time.monotonic() < until:
        assert outbox.move(lambda _: None, 10) == 0
        time.sleep(0.02)
    seen = len(opened)
    assert 1 <= seen < 20
    time.sleep(0.2)
    assert outbox.move(lambda _: None, 10) == 0
    assert len(opened) == seen
    outbox.close()


def _is(fd, path):
    with contextlib.suppress(OSError):
        return str(fd.readlink()) in {path, f"{path}-wal", f"{path}-shm"}


def test_a_reader_of_sqlite_disturbs_no_transaction(tmp_path, store, external):
    url = business.shop("sqlite", tmp_path)
    application = business.WithSession(url, "transaction")
    path = url.removeprefix("sqlite:///")
    rounds = 50
    try:
        with relaying(url, store, store):
            order_many(application, 5, each=5)
            wait_for(lambda: stored(store) == 5)
            connection = sqlite3.connect(path, timeout=0, isolation_level=None)
            with contextlib.closing(connection):
                for n in range(rounds):
                    connection.execute("BEGIN")
                    connection.execute("SELECT count(*) FROM orders").fetchone()
                    # An error here would be SQLITE_BUSY, or SQLITE_BUSY_SNAPSHOT.
                    connection.execute("INSERT INTO orders (name) VALUES (?)", (f"direct {n}",))
                    connection.execute("COMMIT")
                    order_many(application, 5, start=1000 * (n + 1), each=5)
            wait_for(lambda: stored(store) == 5 * (rounds + 1))
    finally:
        application.close()


def test_the_application_does_not_wait_for_a_relay_in_postgresql(tmp_path, store, external):
    """The relays are stopped inside their transactions."""
    url = business.shop("postgresql", tmp_path)
    application = business.WithSession(
        f"{url}?options=-c%20lock_timeout%3D5s", "transaction", strict=True
    )
    inside = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
    inside += " AND datname = current_database()"
    ordered, found = 0, 0
    try:
        with relaying(url, store, store) as relays, psycopg.connect(url, autocommit=True) as other:

            def is_inside():
                return other.execute(inside).fetchone()[0] > 0

            while found < 3:
                assert ordered < 50_000, f"{found} times inside a transaction"
                order_many(application, 500, start=ordered, each=100)
                any(is_inside() for _ in range(1000))
                for relay in relays:
                    relay.send_signal(signal.SIGSTOP)
                found += is_inside()
                order_many(application, 20, start=ordered + 500)  # no error, in strict mode
                for relay in relays:
                    relay.send_signal(signal.SIGCONT)
                ordered += 520
            wait_for(lambda: stored(store) == ordered)
    finally:
        application.close()


def test_rows_that_were_moved_are_deleted_by_the_next_event(tmp_path, store, external):
    url = business.shop("sqlite", tmp_path)
    application = business.WithSession(url, "transaction")
    try:
        order_many(application, 300)
        assert sidelight("relay", "--once", *of(store), "--outbox", url).code == 0
        assert outbox_status(url).moved == 300
        orders = itertools.count(300)

        def order_one_more():
            order_many(application, 1, start=next(orders), each=1)
            return outbox_status(url).moved <= 1  # one stays: it is how far the relay has got

        wait_for(order_one_more)
        assert waiting(url) == next(orders) - 300
    finally:
        application.close()


def test_another_database_in_its_place_is_read_from_the_start(tmp_path, store, external):
    """Restored from a copy, or deleted and made anew: positions are used again then."""
    url = business.shop("sqlite", tmp_path)
    path = tmp_path / "business.db"
    application = business.WithSession(url, "transaction")
    try:
        order_many(application, 20)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(f"VACUUM INTO '{tmp_path / 'copy.db'}'")
        order_many(application, 40, start=20)
        assert sidelight("relay", "--once", *of(store), "--outbox", url).code == 0
        assert stored(store) == 60
        application.close()
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"business.db{suffix}").unlink(missing_ok=True)
        shutil.move(tmp_path / "copy.db", path)
        application = business.WithSession(url, "transaction")
        order_many(application, 20, start=1000)
        assert sidelight("relay", "--once", *of(store), "--outbox", url).code == 0
        names = business.Watched(f"sqlite:///{store}").stored_names()
        assert names >= business.committed(url)
        assert len(names) == 80
    finally:
        application.close()


def test_while_the_store_does_not_answer_rows_stay(application, url, store, tmp_path):
    """A spool can be full; the business's database has room, and keeps them safe."""
    order_many(application, 40)
    down = "postgresql://nobody@127.0.0.1:9/none"
    done = sidelight(
        "relay", "--once", "--store", down, "--spool", tmp_path / "elsewhere", "--outbox", url
    )
    assert done.code == 1
    assert waiting(url) == 40


class Found:
    """An outbox in which there is one row."""

    shown = "found"

    def __init__(self):
        self.rows = 1

    def move(self, take, limit):
        found, self.rows = self.rows, 0
        take([b""] * found)
        return found


def test_a_flush_is_not_answered_by_a_look_that_was_not_taken(tmp_path):
    """The store has not answered yet when the first is asked for."""
    spool = Spool(tmp_path, {})
    ready = []
    mover = Mover(Found(), spool, lambda: bool(ready))
    mover.loop.start()
    try:
        moved = mover.request()
        time.sleep(0.2)
        assert not moved()
        ready.append(True)
        wait_for(moved)
        assert mover.health.delivered == 1
    finally:
        mover.loop.stop()
        mover.loop.join(60)
        spool.close()


class Slow(Found):
    """An outbox whose database answers late."""

    def __init__(self):
        super().__init__()
        self.asked, self.answered, self.closed = (threading.Event() for _ in range(3))

    def move(self, take, limit):
        self.asked.set()
        self.answered.wait(60)
        return 0

    def close(self):
        self.closed.set()


def test_an_outbox_that_answers_late_is_closed_by_its_mover(tmp_path):
    """The relay does not wait for it. Its connection would stay open."""
    spool, outbox, watermark = Spool(tmp_path, {}), Slow(), Watermark()
    relay = Relay(spool, [], watermark, outboxes=[outbox])
    relay.movers[0].ready = lambda: True
    relay.start()
    assert outbox.asked.wait(60)
    assert not relay.stop(0.1)
    assert not outbox.closed.is_set()
    outbox.answered.set()
    assert outbox.closed.wait(60)
    assert relay.movers[0].loop.join(time.monotonic() + 60)
    spool.close()
