"""Row 31: whatever the sessions of relay and caller are set to, the events are the same."""

import contextlib
import logging
import threading
import time

import psycopg
import pytest
from tests.support import business
from tests.support.commands import sidelight as command
from tests.support.postgres import new_database
from tests.support.receipts import Told
from tests.support.stored import exact
from tests.support.telemetry import restore

import sidelight
from sidelight import arg, emits
from sidelight.store import StoreSink

#: As a database, a role or PGOPTIONS may set them.
SETTINGS = {
    "statement_timeout": "80",  # ms
    "lock_timeout": "1",
    "idle_in_transaction_session_timeout": "80",
    "idle_session_timeout": "300",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "search_path": "nowhere",
    "array_nulls": "off",
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "DateStyle": "German",
    "TimeZone": "Asia/Kathmandu",
    "session_replication_role": "replica",
    "row_security": "off",
    "synchronous_commit": "off",
    "client_min_messages": "debug5",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
}
#: The same, of servers since a version.
NEWER = {170_000: {"transaction_timeout": "80"}}
PATIENT = dict.fromkeys([name for name in SETTINGS if name.endswith("timeout")], "0")
#: Each write takes longer than the sessions' timeouts.
SLOW = """
    CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_catalog.pg_sleep(0.15); RETURN NULL; END $$;
    CREATE TRIGGER slow AFTER {verb} ON {table} EXECUTE FUNCTION public.slow();
    ALTER TABLE {table} ENABLE ALWAYS TRIGGER slow
"""


def patient(url):
    """Connect with settings of the test's own."""
    options = " ".join(f"-c {name}={value}" for name, value in PATIENT.items())
    options += " -c default_transaction_read_only=off"
    connection = psycopg.connect(url, autocommit=True, options=options)
    for name in settings_of(connection).keys() - SETTINGS.keys():
        connection.execute(f"SET {name} = 0")
    return connection


def settings_of(connection):
    """The settings that the server knows."""
    version = connection.info.server_version
    newer = [settings for since, settings in NEWER.items() if version >= since]
    return SETTINGS | dict(item for settings in newer for item in settings.items())


@emits("ordered", transaction=arg.connection, artifact_id=arg.n, text=arg.text)
def order(connection, n, text):
    """Do nothing else."""


def set_badly(url, verb, table):
    database = url.rpartition("/")[2]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SLOW.format(verb=verb, table=table))
        for name, value in settings_of(connection).items():
            connection.execute(f"ALTER DATABASE {database} SET {name} = '{value}'")


@pytest.fixture(params=["same database", "another database"])
def urls(request):
    """The URLs of the store and of the business, on databases whose sessions are set badly."""
    shop = new_database()
    store = shop if request.param == "same database" else new_database()
    business.create_tables(shop)
    with contextlib.closing(StoreSink(store)) as sink:
        sink.note_end({"instance": "first"})  # creates the tables
    set_badly(shop, "DELETE", "sidelight_outbox")
    if store != shop:
        set_badly(store, "INSERT", "sidelight.artifacts")
    return store, shop


def test_sessions_that_are_set_badly(urls, tmp_path, caplog, row):
    store, shop = urls
    spool = tmp_path / "spool"
    caplog.set_level(logging.WARNING, logger="sidelight")
    sidelight.configure(store, outboxes=[shop], spool=spool, otlp=False, deadline=1.0)
    try:
        receipts = []
        with patient(shop) as connection:
            for n in range(10):
                with connection.transaction():
                    connection.execute("SET TRANSACTION READ WRITE")
                    order(connection, n, f"\\ ' \" {n}")
        with patient(store) as other:
            other.execute("BEGIN READ WRITE; LOCK TABLE sidelight.artifacts IN EXCLUSIVE MODE")
            for _ in range(10):
                receipts.append(sidelight.emit("sent", artifact_id="a"))
                receipts.append(sidelight.emit("sent", artifact_id="b", organization_id="acme"))
                receipts.append(sidelight.emit("sent", n=None))
            threading.Timer(0.3, other.execute, ["COMMIT"]).start()
            flushed = sidelight.flush(60)
        for _ in range(2):
            time.sleep(0.5)  # the server ends the relay's sessions
            receipts.append(sidelight.emit("sent", artifact_id="a").wait())
        assert sidelight.flush(60)
        told = [(str(receipt), receipt.state) for receipt in receipts]
        row.of_receipts(
            29,
            "settings of sessions",
            store,
            Told(told, flushed),
            injected=len(SETTINGS),
            others=10,
        )
        events = exact(store)
        assert {event.organization_id for event in events} == {None, "acme"}
        assert {state for _, state in told} == {"stored"}
        # A session may end between the relay's look and its statement.
        assert [said for said in caplog.messages if "idle-session timeout" not in said] == []
        for url in urls:  # a command that loses its session says so, and has to be repeated
            with patient(url) as connection:
                database = url.rpartition("/")[2]
                connection.execute(f"ALTER DATABASE {database} RESET idle_session_timeout")
        options = "--store", store, "--spool", spool
        for arguments in [
            ("outbox", "create", f"{shop}?options=-csearch_path%3Dpublic"),
            ("outbox", "status", shop),
            ("counts", "--store", store),
            ("prune", "--older-than", "400d", "--store", store),
            ("erase", "--artifact", "b", *options, "--outbox", shop, "--yes"),
        ]:
            answer = command(*arguments)
            assert answer.code == 0, answer.out + answer.err
        found = command("doctor", "--json", *options, "--outbox", shop).json
        # This process has costs of other tests as well.
        assert {each["check"] for each in found if each["state"] == "wrong"} <= {"budget"}, found
        with sidelight.Store(store) as opened:
            left = {event.artifact_id for event in opened.events()}
        assert left == {None, "a", *map(str, range(10))}
    finally:
        restore()
