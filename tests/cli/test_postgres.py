"""The command line on a PostgreSQL store."""

import contextlib
import os
import signal
from xml.etree import ElementTree as ET

import psycopg
import pytest
from tests.support.commands import KILLED, TWO_ORDERS, emit, end, sidelight, spawn, wait_for
from tests.support.postgres import new_database, own_server

from sidelight import Store
from sidelight.exceptions import SidelightError
from sidelight.spool.directory import segments_in


@pytest.fixture
def url():
    return new_database(own_server())


@pytest.fixture
def spool(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def filled(url, spool):
    emit(TWO_ORDERS, spool, SIDELIGHT_STORE=url, SIDELIGHT_SPOOL=str(spool))
    return url


@pytest.fixture
def doctor(url, spool):
    return lambda: sidelight("doctor", "--store", url, "--spool", spool)


def test_the_questions(filled):
    of = ("--store", filled)
    events = sidelight("events", "--json", *of).json
    assert [event["type"] for event in events] == [
        "order_received",
        "packing_started",
        "order_packed",
        "order_received",
        "packing_started",
        "packing_failed",
    ]
    assert events[0]["attributes"] == {"size": 3}
    assert sidelight("events", "--type", "packing_failed", *of).code == 0
    assert [event["type"] for event in sidelight("timeline", "order-1", "--json", *of).json] == [
        "order_received",
        "packing_started",
        "order_packed",
    ]
    assert sum(count["count"] for count in sidelight("counts", "--json", *of).json) == 6
    assert "north" in sidelight("artifacts", *of).out
    assert {cost["count"] for cost in sidelight("budget", "--json", *of).json} == {2, 4}
    assert "did you mean order-1?" in sidelight("timeline", "order-11", *of).err


def test_a_timeline_as_a_picture(filled, tmp_path):
    assert (
        sidelight("timeline", "order-1", "--svg", tmp_path / "t.svg", "--store", filled).code == 0
    )
    ET.parse(tmp_path / "t.svg")


def test_following(filled, spool):
    process = spawn("tail", "--last", "2", "--json", "--store", filled)
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        emit(
            "receive('order-3'); assert sidelight.flush(60)",
            spool,
            SIDELIGHT_STORE=filled,
            SIDELIGHT_SPOOL=str(spool),
        )
        lines.append(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGINT)
        said = end(process)
    assert "order-3" in lines[-1]
    assert said.err == ""


def test_what_a_killed_process_left_is_delivered(url, spool, doctor):
    emit(KILLED, spool, ends=9, SIDELIGHT_STORE=url, SIDELIGHT_SPOOL=str(spool))
    said = doctor()
    assert said.code == 1
    assert "there is none at" in said.words
    said = sidelight("relay", "--once", "--store", url, "--spool", spool)
    assert (said.code, said.err) == (0, "")
    assert "500" in said.out
    assert list(segments_in(spool)) == []
    with Store(url) as store:
        assert store.size() == 500
    said = doctor()
    assert said.code == 0, said.out
    assert "500 events" in said.words


def test_a_relay_of_its_own(url, spool):
    emit(KILLED, spool, ends=9, SIDELIGHT_STORE=url, SIDELIGHT_SPOOL=str(spool))

    def all_there():
        with contextlib.suppress(SidelightError), Store(url) as store:
            return store.size() == 500
        return False

    process = spawn("relay", "--store", url, "--spool", spool)
    try:
        wait_for(all_there)
    finally:
        process.terminate()
        said = end(process)
    assert said.code == 0
    assert list(segments_in(spool)) == []


def test_a_password_is_never_told_and_has_to_be_named_again(url, spool):
    secret = url.replace("sidelight@", "sidelight:geheim@")
    emit(KILLED, spool, ends=9, SIDELIGHT_STORE=secret, SIDELIGHT_SPOOL=str(spool))
    assert b"geheim" not in b"".join(path.read_bytes() for path in segments_in(spool))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SIDELIGHT_STORE", raising=False)
        said = sidelight("relay", "--once", "--spool", spool)
    assert said.code == 1
    assert "needs its password" in said.err
    assert sidelight("relay", "--once", "--spool", spool, "--store", secret).code == 0
    for command in (["doctor", "--spool", spool], ["events"], ["artifacts"], ["timeline", "x"]):
        said = sidelight(*command, "--store", secret)
        assert "geheim" not in said.out + said.err


# -- what is wrong, in words -----------------------------------------------------------------


def test_a_server_that_is_down():
    dead = "postgresql://127.0.0.1:1/events"
    said = sidelight("doctor", "--store", dead, "--spool", os.devnull + "/x")
    assert said.code == 1
    assert "refused" in said.words
    said = sidelight("events", "--store", dead)
    assert said.code == 1
    assert "refused" in said.err
    assert "Traceback" not in said.err


def test_a_database_that_is_not_there(url):
    said = sidelight("events", "--store", url + "_not")
    assert said.code == 1
    assert "does not exist" in said.err


def test_a_database_without_events(url):
    said = sidelight("events", "--store", url)
    assert said.code == 1
    assert "holds no sidelight tables" in said.err


def test_a_user_who_may_only_read(filled, spool):
    reader = f"reader_{os.getpid()}"
    with psycopg.connect(filled, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {reader} LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA sidelight TO {reader}")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA sidelight TO {reader}")
    try:
        theirs = filled.replace("sidelight@", f"{reader}@")
        assert len(sidelight("events", "--json", "--store", theirs).json) == 6
        said = sidelight("doctor", "--store", theirs, "--spool", spool)
        assert said.code == 1
        assert "cannot be written: permission denied" in said.words
    finally:
        with psycopg.connect(filled, autocommit=True) as connection:
            connection.execute(f"DROP OWNED BY {reader}")
            connection.execute(f"DROP ROLE {reader}")
