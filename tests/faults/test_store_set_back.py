"""Row 32: the store loses what it had acknowledged: an older copy, a replica that was behind."""

import contextlib
import sqlite3

import psycopg
import pytest
from tests.support.balance import balance
from tests.support.postgres import Postgres, binaries, new_database
from tests.support.telemetry import restore

import sidelight
from sidelight.emission import EMITTER
from sidelight.store.address import parse_url
from sidelight.store.witness import GONE


@contextlib.contextmanager
def copied_in_place(tmp_path):
    """A SQLite file gets the content of its older copy, and stays the same file."""
    path, copy = tmp_path / "events.db", tmp_path / "copy.db"

    def copy_into(source, target):
        with (
            contextlib.closing(sqlite3.connect(source)) as one,
            contextlib.closing(sqlite3.connect(target)) as other,
        ):
            one.backup(other)

    yield f"sqlite:///{path}", lambda: copy_into(path, copy), lambda: copy_into(copy, path)


@contextlib.contextmanager
def recreated(tmp_path):
    """A PostgreSQL database is dropped, and made from an older copy."""
    url = new_database()
    name = url.rpartition("/")[2]

    def execute(*statements):
        with psycopg.connect(url.replace(name, "postgres"), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def keep():
        execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
            f"CREATE DATABASE {name}_copy TEMPLATE {name}",
        )

    def set_back():
        execute(
            f"DROP DATABASE {name} WITH (FORCE)", f"ALTER DATABASE {name}_copy RENAME TO {name}"
        )

    yield url, keep, set_back


@contextlib.contextmanager
def failed_over(tmp_path):
    """A standby that was stopped before the last commits is promoted."""
    primary, standby = (Postgres(binaries(), "-c", "fsync=off") for _ in range(2))
    with contextlib.closing(primary), contextlib.closing(standby):
        primary.start()
        name = new_database(primary).rpartition("/")[2]
        data, source = standby.directory / "data", primary.url("postgres")
        copied = standby._run(
            "pg_basebackup", "-D", data, "-d", source, "-R", "-cfast", "--no-sync"
        )
        assert copied.wait(300) == 0
        standby.start()
        hosts = "&".join(f"host=127.0.0.1:{each.port}" for each in (primary, standby))

        def catch_up():
            with psycopg.connect(primary.url(name), autocommit=True) as connection:
                (until,) = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
            with psycopg.connect(standby.url(name), autocommit=True) as connection:
                query = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
                while not connection.execute(query, (until,)).fetchone()[0]:
                    pass
            standby.kill()

        def promote():
            primary.kill()
            standby.start()
            with psycopg.connect(standby.url(name), autocommit=True) as connection:
                connection.execute("SELECT pg_promote(true, 60)")

        yield (
            f"postgresql://sidelight@/{name}?{hosts}&target_session_attrs=read-write",
            catch_up,
            promote,
        )


@pytest.mark.parametrize(
    "how", [copied_in_place, recreated, failed_over], ids=lambda how: how.__name__
)
def test_what_a_store_has_lost_is_counted(how, tmp_path, row):
    with how(tmp_path) as (store, keep, set_back):
        sidelight.configure(store, spool=tmp_path / "spool", otlp=False)
        try:
            receipts = []

            def emit(name, count):
                receipts.extend(sidelight.emit(name, artifact_id=n) for n in range(count))
                assert sidelight.flush(60)

            emit("before", 7)
            keep()
            emit("between", 5)
            emit("between", 6)
            assert {receipt.state for receipt in receipts} == {"stored"}
            set_back()
            emit("after", 3)
            emit("after", 3)
            assert EMITTER.losses[GONE] == 11
            assert sidelight.flush(60)
            with sidelight.Store(store) as opened:
                stored = [event.event_id for event in opened.events()]
                (told,) = [loss for loss in opened.losses() if loss.reason == GONE]
            assert told.count == 11
            assert told.problem.startswith(parse_url(store).shown)  # another store may be asked
        finally:
            restore()
            EMITTER.losses.clear()
        row(
            30,
            f"store {how.__name__}",
            injected=1,
            verdict=balance(map(str, receipts), stored, counted=told.count),
        )
