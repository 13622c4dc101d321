"""Row 17: the store answers with an error: a deadlock, a conflict, a rule of its owner.

The relay retries errors that no record causes. It sets poison records aside, delivers the others,
and delivers the poison records after their reason is gone.
"""

import time

import pytest
from sqlalchemy.engine import make_url
from tests.support.commands import sidelight
from tests.support.emitting import Order
from tests.support.postgres import connected, new_database, own_server
from tests.support.programs import (
    caught_up,
    deliver,
    judge,
    nothing_left,
    running,
    stored,
)
from tests.support.rules import alter, rule
from tests.support.stored import NOON, record, store

from sidelight.relay.refusals import DOUBTFUL
from sidelight.store.engine import connect

ROUNDS_FULL, ROUNDS_SHORT = 40, 1
CALLS_FULL, CALLS_SHORT = 10_000, 200
PAUSE = 0.001
SELDOM, OFTEN = 301, 31  # one number in so many is poison


@pytest.fixture
def rounds(full):
    return ROUNDS_FULL if full else ROUNDS_SHORT


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def backend(request):
    return request.param


@pytest.fixture
def url(backend, tmp_path):
    """Return the URL of a store that has its tables."""
    made = new_database(own_server())
    if backend == "SQLite":
        made = f"sqlite:///{tmp_path / 'events.db'}"
    connect(made, create=True).dispose()
    return made


@pytest.fixture
def spool(tmp_path):
    return tmp_path / "spool"


# -- what is nobody's fault: PostgreSQL alone has it --------------------------------------------

#: A session of a relay's that waits for a lock of ours.
BLOCKED = """
SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
AND application_name = 'sidelight' AND wait_event_type = 'Lock'
"""
#: Events of these artifacts into another partition.
MOVE = """
UPDATE events SET event_id = overlay(event_id::text PLACING '01ff' FROM 1 FOR 4)::uuid
WHERE type = 'made' AND artifact_id::int BETWEEN %s AND %s AND organization_id IS NULL
AND event_id < '01ff0000-0000-7000-0000-000000000000'
"""


@pytest.fixture
def server_said():
    """Count an error in the log of the server, from now on."""
    log = own_server().directory / "log"
    before = log.stat().st_size

    def count(error):
        return log.read_bytes()[before:].count(f"ERROR:  {error}".encode())

    return count


def is_blocked(watch, seconds=2.0):
    """Wait until a relay waits for a lock."""
    until = time.monotonic() + seconds
    while not (found := watch.execute(BLOCKED).fetchall()) and time.monotonic() < until:
        time.sleep(0.002)
    return bool(found)


@pytest.mark.parametrize("backend", ["PostgreSQL"], indirect=True)
def test_deadlocks(url, spool, server_said, rounds, progress, settled):
    """Another session locks a counter and then an artifact. The relay locks in reverse order."""
    deadlocks = "deadlock detected"
    alter(url, f"ALTER DATABASE {make_url(url).database} SET deadlock_timeout = '200ms'")
    order = Order(threads=2, pause=PAUSE, configure={}, prelude="decorate(artifact_id='one')")
    with (
        running(url, spool, order=order) as program,
        connected(url) as other,
        connected(url) as watch,
    ):
        program.emit(40)
        caught_up(url, program)
        other.execute("SET deadlock_timeout = '60s'")  # it is the relay that is to be the victim
        while (met := server_said(deadlocks)) < rounds:
            progress(f"{met} deadlocks")
            with other.transaction():
                other.execute("UPDATE event_counts SET count = count WHERE type = 'scheduled'")
                if is_blocked(watch):
                    other.execute("UPDATE artifacts SET events = events WHERE artifact_id = 'one'")
            program.emit(10)
        caught_up(url, program)
        assert program.stop() == 0, program.told()
    settled(17, "PostgreSQL: deadlocks", url, program, injected=met, spool=spool)


@pytest.mark.parametrize("backend", ["PostgreSQL"], indirect=True)
def test_serialization_failures(url, spool, server_said, rounds, progress, settled):
    """One serialization failure is left in READ COMMITTED, which the relay always uses.

    The relay gives a row its organization, and the row was moved to another partition.
    """
    failures = "tuple to be locked was already moved to another partition"
    nameless = 400 * rounds
    store(url, [record("made", NOON + n, artifact=n, bits=n) for n in range(nameless)])
    database = make_url(url).database
    alter(url, f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'")
    order = Order(pause=PAUSE, configure={})
    with (
        running(url, spool, order=order) as program,
        connected(url) as other,
        connected(url) as watch,
    ):
        program.emit(20)
        caught_up(url, program)
        while (met := server_said(failures)) < rounds:
            progress(f"{met} failures")
            begin = program.calls + 20
            assert begin < nameless
            with other.transaction():
                other.execute(MOVE, (begin, begin + 100))
                is_blocked(watch)
        caught_up(url, program)
        assert program.stop() == 0, program.told()
    settled(17, "PostgreSQL: serialization failures", url, program, injected=met, spool=spool)


# -- rules that are not about a record ----------------------------------------------------------


def set_aside(url, spool):
    """Return the quarantined records, by the command line."""
    answer = sidelight("spool", "quarantined", "--store", url, "--spool", spool, "--json")
    assert answer.code == 0, answer.err
    return answer.json


def wrong(url, spool):
    """Return the messages of the doctor's failed checks, by check."""
    answer = sidelight("doctor", "--store", url, "--spool", spool, "--json")
    return {each["check"]: each["message"] for each in answer.json if each["state"] == "wrong"}


def test_rules_that_no_record_is_to_blame_for(backend, url, spool, full, settled):
    """All records of a batch wait until the rule is gone, and none is set aside."""
    of_counters = rule(url, "event_counts", "NEW.type = 'scheduled'")
    if backend == "PostgreSQL":
        table = "ALTER TABLE event_counts"
        check = f"{table} ADD CONSTRAINT not_now CHECK (type <> 'scheduled') NOT VALID"
        of_counters = check, f"{table} DROP CONSTRAINT not_now"
    alter(url, "CREATE TABLE seen (type TEXT UNIQUE)")
    of_another_table = rule(url, "events", then="INSERT INTO seen VALUES (NEW.type)")
    rules = (of_counters, of_another_table) * (10 if full else 1)
    with running(url, spool, order=Order(threads=2, pause=PAUSE, configure={})) as program:
        for made, gone in rules:
            program.emit(40)
            caught_up(url, program)
            alter(url, made)
            program.emit(100)
            assert stored(url) < program.calls
            assert set_aside(url, spool) == []
            alter(url, gone)
            caught_up(url, program)
        assert program.stop() == 0, program.told()
    settled(
        17,
        f"{backend}: rules that are nobody's fault",
        url,
        program,
        injected=len(rules),
        spool=spool,
    )
    assert set_aside(url, spool) == []


def test_a_rule_that_no_event_meets(backend, url, spool, full, row):
    """The store refuses each event. The relay sets a few aside, then backs off."""
    made, gone = rule(url, "events")
    with running(url, spool, order=Order(threads=2, pause=PAUSE, configure={})) as program:
        program.emit(40)
        caught_up(url, program)
        alter(url, made)
        program.emit(2000 if full else 100)
        alter(url, gone)
        program.emit(20)
        assert program.stop() == 0, program.told()
    deliver(url, spool)
    aside = len(set_aside(url, spool))
    assert aside <= DOUBTFUL
    if aside:
        answer = sidelight("spool", "replay", "--store", url, "--spool", spool)
        assert f"store: {aside} record" in answer.out
    row(17, f"{backend}: a rule that no event meets", injected=1, verdict=judge(url, program))
    nothing_left(url, spool)


# -- a record's own fault -----------------------------------------------------------------------


def test_poison_among_good_ones(backend, url, spool, full, row):
    """The store refuses one value in many. Its records are set aside, shown, and come later."""
    every = SELDOM if full else OFTEN
    n = "json_extract(NEW.attributes, '$.n')"
    if backend == "PostgreSQL":
        n = "(NEW.attributes ->> 'n')::int"
    made, gone = rule(url, "events", f"{n} % {every} = 7", name="an_odd_one")
    alter(url, made)
    calls = CALLS_FULL if full else CALLS_SHORT
    flushed = "assert not sidelight.flush(60); assert sidelight.flush(60)"  # refusals are told once
    order = Order(calls=calls, pause=PAUSE, configure={}, finale=flushed)
    with running(url, spool, order=order) as program:
        assert program.end() == 0, program.told()
    deliver(url, spool)
    nothing_left(url, spool)
    poison = {number for number in program.reports.numbers if number % every == 7}
    found = judge(url, program)
    lost_ids = {each for each in found.lost if isinstance(each, str)}
    assert {each for each in found.lost if isinstance(each, int)} == poison
    assert found.counted["refused by store"] == len(poison)

    entries = set_aside(url, spool)
    assert sorted(each["attributes"]["n"] for each in entries) == sorted(poison)
    assert lost_ids <= {each["event_id"] for each in entries}
    assert {each["reason"] for each in entries} == {"refused by store"}
    assert all("an_odd_one" in each["problem"] for each in entries)
    told = wrong(url, spool)
    assert told["quarantine"].startswith(f"{len(poison)} entries: refused by store")
    assert f"refused by store: {len(poison)} times" in told["losses"]

    again = sidelight("spool", "replay", "--store", url, "--spool", spool)
    assert (again.code, len(set_aside(url, spool))) == (1, len(poison))
    alter(url, gone)
    again = sidelight("spool", "replay", "--store", url, "--spool", spool)
    assert (again.code, again.words) == (0, f"store: {len(poison)} records delivered")
    assert set_aside(url, spool) == []
    verdict = judge(url, program)
    row(17, f"{backend}: poison among good ones", injected=len(poison), verdict=verdict)
