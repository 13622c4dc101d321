"""Retention: pruned events stay away, kept events are counted exactly, and relays go on writing."""

import contextlib
import functools
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import select, update
from tests.store.test_store_contract import snapshot
from tests.support.stored import (
    DAY,
    SECOND,
    batches_of,
    deliver,
    exact,
    ledger,
    record,
    store,
    together,
)

from sidelight import Store
from sidelight.exceptions import (
    QueryError,
    SinkRefusedError,
    StoreBusyError,
    StoreMissingError,
)
from sidelight.record.format import event_id
from sidelight.store import steps
from sidelight.store.processes import number_of
from sidelight.store.retention import Pruner
from sidelight.store.schema import deliveries, processes
from sidelight.store.sink import StoreSink


def ago(days, hours=0):
    """The time (ns) so many days before the start of today, and hours later.

    Of today only the start is over for certain, and a session may run over midnight.
    """
    return (int(time.time()) * SECOND // DAY - days) * DAY + hours * 3600 * SECOND


def day(days):
    return datetime.fromtimestamp(ago(days) // SECOND, UTC).date()


def prune(url, older_than, **options):
    """Plan and run; return the plan."""
    with Pruner(url) as pruner:
        plan = pruner.plan(older_than)
        assert sum(pruner.run(plan, **options)) <= plan.events + plan.artifacts
    return plan


def counted(url):
    with Store(url) as opened:
        return {(c.organization_id, c.type, c.day): c.count for c in opened.counts()}


@pytest.fixture
def slowly(monkeypatch):
    """Prune in tiny transactions, without a pause."""
    monkeypatch.setattr(steps, "_ROWS", (7, 7))
    monkeypatch.setattr(steps, "_TARGET", 0.0)


@functools.cache
def _recent(_):
    return [record("made", ago(days), artifact=f"a{days}") for days in (0, 5, 29, 31, 50)]


@functools.cache
def _year(_):
    return [
        record("made", ago(400, 1), artifact="ended", organization="o1"),
        record("sent", ago(380, 1), artifact="ended"),
        record("made", ago(370, 23), artifact="long", organization="o2"),
        record("sent", ago(366, 23), artifact="long"),
        record("sent", ago(365, 0), artifact="long"),
        record("made", ago(364, 1), artifact=None),
        record("made", ago(2, 5), artifact="young"),
    ]


def recent():
    return _recent(ago(0))


def year():
    return _year(ago(0))


def test_older_events_go_and_the_rest_is_exact(url, ask):
    store(url, year())
    before = counted(url)
    plan = prune(url, timedelta(days=365))
    assert (plan.kept_since, plan.events, plan.artifacts) == (day(365), 4, 1)
    assert [e.occurred_ns for e in exact(url, day(365))] == [
        moment.time for _, moment in year()[4:]
    ]
    assert counted(url) == before
    (long,) = (a for a in ask(Store.artifacts) if a.artifact_id == "long")
    assert (long.events, long.organization_id) == (3, "o2")
    assert long.first_event_at.date() == day(370)


def test_processes_that_have_ended_go_with_their_last_event(url, ask):
    with closing(StoreSink(url)) as sink:
        for writer, at in (("old", ago(400)), ("young", ago(2)), ("silent", ago(400))):
            sink.write([record(at=at, artifact=writer)], {"instance": writer})
            sink.note_alive({"instance": writer}, at)
            if writer != "silent":
                sink.note_end({"instance": writer})
    with Pruner(url) as pruner:  # nothing of them was stored as long ago as it occurred
        long_ago = update(processes).values(last_seen=ago(390))
        pruner._steps.run(lambda connection: connection.execute(long_ago))
        at = update(deliveries).where(deliveries.c.process == number_of("old"))
        pruner._steps.run(lambda connection: connection.execute(at.values(recorded_at=ago(390))))
    prune(url, timedelta(days=365))
    assert {each.process for each in ask(Store.processes)} == {"young", "silent"}
    assert len(ask(Store._read, select(deliveries))) == 2  # of today
    assert [each.artifact_id for each in ask(Store.events, service="x")] == []


def test_counters_of_pruned_days_go_on_demand(url):
    store(url, year())
    before = counted(url)
    prune(url, "365d", counts=True)
    assert counted(url) == {key: n for key, n in before.items() if key[2] >= day(365)}
    exact(url, day(365))


def test_a_day_goes_as_a_whole(url):
    store(url, [record(at=ago(10, hours), bits=hours) for hours in range(24)], recent()[:1])
    assert prune(url, datetime.fromtimestamp(ago(10, 15) // SECOND, UTC)).events == 0
    assert prune(url, day(9)).events == 24
    assert len(exact(url, day(9))) == 1


def test_a_plan_is_exact_and_changes_nothing(url):
    store(url, year())
    before = exact(url), counted(url)
    with Pruner(url, dry=True) as pruner:
        plan = pruner.plan("365d")
        assert pruner.plan("365d") == plan
        assert (plan.kept_since, plan.events, plan.artifacts) == (day(365), 4, 1)
        assert pruner.plan("20000d").events == 0
    assert (exact(url), counted(url)) == before


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        *[(w, "less than a day ago") for w in ("23h", "0d", timedelta(0), date.max, "2999-01-01")],
        ("old", "older than: 'old' is not a time"),
    ],
    ids=repr,
)
def test_an_age_that_relays_may_still_deliver_is_refused(url, when, problem):
    store(url, [record()])
    with Pruner(url) as pruner, pytest.raises(QueryError, match=problem):
        pruner.plan(when)


def test_a_missing_store_is_not_created(no_store):
    for open_store in (Pruner, Store):
        with pytest.raises(StoreMissingError):
            open_store(no_store)


# -- pruned events stay away -----------------------------------------------------------------


def too_old(url, *batches):
    """Deliver batches; return the records that the store refuses as too old."""
    refused = []
    with closing(StoreSink(url)) as sink:
        for batch in batches:
            try:
                deliver(sink, batch)
            except SinkRefusedError as error:
                assert error.facts["reason"] == "older than the store keeps"
                assert re.search("occurred at 20..-..-..T.*which is pruned", str(error))
                refused += error.facts["records"]
    return refused


def test_a_pruned_event_that_is_delivered_again_does_not_come_back(url, ask):
    store(url, year())
    prune(url, "365d")
    before = counted(url), ask(Store.artifacts)
    assert too_old(url, year(), year()[:4]) == year()[:4] * 2
    assert (counted(url), ask(Store.artifacts)) == before
    exact(url, day(365))


def test_a_late_event_is_refused_and_the_rest_of_its_batch_is_stored(url, ask):
    store(url, year())
    prune(url, "365d")
    late = [record("late", ago(366), artifact="x"), record("late", ago(365), artifact="y")]
    assert too_old(url, late) == late[:1]
    assert {e.artifact_id for e in ask(Store.events, type="late")} == {"y"}
    exact(url, day(365))


def test_a_later_pruning_moves_nothing_back(url):
    store(url, year())
    prune(url, "365d")
    plan = prune(url, "5000d")
    assert (plan.kept_since, plan.events) == (day(365), 0)
    assert too_old(url, year()) == year()[:4]
    exact(url, day(365))


# -- wrong clocks ----------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Sets the clock of this machine so many days ahead."""
    now = time.time_ns

    def ahead(days):
        monkeypatch.setattr(time, "time_ns", lambda: now() + days * DAY)

    return ahead


@pytest.mark.parametrize("days", [2, 40, 365, 4000])
def test_a_clock_that_is_ahead_deletes_nothing_that_is_younger(url, clock, days):
    store(url, recent())
    clock(days)
    plan = prune(url, "30d")
    clock(0)
    assert day(30) - plan.kept_since <= timedelta(days=1)
    assert plan.kept_since - day(30) <= timedelta(days=3)  # a tenth of the age
    assert (plan.counted_from is None) is (days == 2)
    assert too_old(url, [record("later", time.time_ns())]) == []
    assert {event.artifact_id for event in exact(url, plan.kept_since)} >= {"a0", "a5"}


def test_a_day_after_the_newest_event_is_refused_and_an_empty_store_is_not_pruned(url, clock):
    store(url, [record(None)])
    clock(365)
    assert prune(url, "30d").events == 0
    with Store(url) as opened:
        assert opened.kept_since() is None
    store(url, recent())
    with Pruner(url) as pruner:
        with pytest.raises(QueryError, match=r"before the newest event.*--trust-clock"):
            pruner.plan(day(-10))
        assert pruner.plan(day(-10), trust_clock=True).events == 5
        assert pruner.plan("30d", trust_clock=True).events == 5
        assert pruner.plan(day(30)).events == 2


def test_a_mark_can_be_taken_back(url):
    store(url, year())
    prune(url, "365d")
    late = [year()[0], record("late", ago(380), artifact="x"), year()[1]]
    assert too_old(url, late) == late
    with Pruner(url) as pruner:
        assert pruner.take_back("2999-01-01") == day(365)
        assert pruner.take_back(day(390)) == day(390)
    assert too_old(url, late) == late[:1]
    with Store(url) as opened:
        assert opened.kept_since() == day(390)
        assert opened.size() == len(list(opened.events())) == len(year()[4:]) + 2
    assert prune(url, "365d").events == 2
    assert len(exact(url, day(365))) == len(year()[4:])


def test_the_organization_becomes_known_after_the_first_events_are_pruned(url):
    store(url, [record("made", ago(days), artifact="a") for days in (400, 300)], recent()[:1])
    prune(url, "365d", counts=True)
    store(url, [record("named", ago(200), artifact="a", organization="o1")])
    events = [event for event in exact(url, day(365)) if event.artifact_id == "a"]
    assert [event.organization_id for event in events] == ["o1", "o1"]
    assert all(count > 0 for count in counted(url).values())


def test_costs_of_old_processes_go_and_losses_stay(url, ask):
    def told(at):
        static, moment = ledger({"odd": 1}, {"shop:make": snapshot(5)})
        return static, type(moment)(at, *(getattr(moment, f) for f in moment.__struct_fields__[1:]))

    store(url, [record(at=ago(400)), told(ago(400))], writer="old")
    store(url, [record(at=ago(10)), told(ago(10))], writer="new")
    prune(url, "365d")
    assert {loss.process for loss in ask(Store.losses)} == {"new", "old"}
    assert [cost.count for cost in ask(Store.costs)] == [1]


# -- stopped in the middle -------------------------------------------------------------------


def many(count, seed=0):
    """Events over 400 days, some of the same artifacts."""
    chance = random.Random(seed)
    return [
        record(
            chance.choice(["made", "sent"]),
            ago(400) + chance.randrange(399 * DAY),
            artifact=(artifact := chance.randrange(count // 4)),
            organization=f"o{artifact % 3}",
            bits=chance.getrandbits(64),
        )
        for _ in range(count)
    ]


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize("steps", [1, 4, 9])
def test_the_next_run_finishes_one_that_was_stopped(url, steps):
    records = many(400)
    store(url, *batches_of(records, 100))
    before = counted(url)
    with Pruner(url) as pruner, closing(pruner.run(pruner.plan("100d"))) as running:
        for _ in range(steps):
            next(running)
    with Store(url) as opened:
        assert opened.kept_since() == day(100)
        assert opened.size() == sum(moment.time >= ago(100) for _, moment in records)
    too_old(url, records)  # delivered again after half of the run
    assert prune(url, "100d").events > 0
    with Pruner(url) as pruner:
        assert pruner.plan("100d").events == 0
    exact(url, day(100))
    assert counted(url) == before


KILLED = """
import sys
from sidelight.store import retention, steps
steps._ROWS, steps._TARGET = (5, 5), 0.0
with retention.Pruner(sys.argv[1]) as pruner:
    for _ in pruner.run(pruner.plan("30d")):
        print("step", flush=True)
"""


def test_the_next_run_finishes_one_that_was_killed(url):
    store(url, *batches_of(many(1200, seed=1), 400))
    before = counted(url)
    for count in (1, 2, 8):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            for _ in range(count):
                assert process.stdout.readline() == b"step\n"
            process.send_signal(signal.SIGKILL)
    prune(url, "30d")
    exact(url, day(30))
    assert counted(url) == before


# -- beside relays ---------------------------------------------------------------------------


@pytest.mark.usefixtures("slowly")
def test_relays_write_during_a_pruning(url):
    """They deliver new events, old ones again, and organizations that become known."""
    old = many(600, seed=2)
    new = [
        record("new", ago(3) + n * SECOND, artifact=n % 40, organization=f"o{n % 40 % 3}", bits=n)
        for n in range(300)
    ]
    nameless = [record("bare", ago(200 - n % 150), artifact=f"n{n}", bits=n) for n in range(90)]
    naming = [
        record("named", ago(2), artifact=f"n{n}", organization="o9", bits=n) for n in range(90)
    ]
    store(url, *batches_of([*old, *nameless], 200))
    before = counted(url)

    def relay(seed, records):
        chance = random.Random(seed)
        batches = batches_of([*records, *chance.sample(old, 300)], 25)
        chance.shuffle(batches)
        with closing(StoreSink(url)) as sink:
            for batch in batches:
                with contextlib.suppress(SinkRefusedError):  # of the rest all are stored
                    deliver(sink, batch)

    together(lambda: relay(1, new), lambda: relay(2, [*new, *naming]), lambda: prune(url, "100d"))
    assert {event.event_id for event in exact(url, day(100))} == {
        event_id(moment.time, moment.random)
        for _, moment in [*old, *new, *nameless, *naming]
        if moment.time >= ago(100)
    }

    def of_pruned_days(counts):
        sums = Counter()
        for (_, type_, at), count in counts.items():
            sums[type_, at] += count * (at < day(100))
        return +sums

    assert of_pruned_days(counted(url)) == of_pruned_days(before)


@pytest.mark.usefixtures("slowly")
def test_two_processes_may_prune_at_once(url):
    store(url, *batches_of(many(500, seed=3), 250))
    together(*[lambda: prune(url, "50d")] * 3)
    exact(url, day(50))


def test_a_store_that_stays_locked_is_named(url, monkeypatch):
    store(url, year())
    monkeypatch.setattr(steps, "_LOCK_TIMEOUT", 0.3)
    with Pruner(url) as other, Pruner(url) as pruner:
        plan = pruner.plan("365d")
        with other._steps._lock, other._writer.begin() as connection:
            other._move_mark(connection, 0)
            with pytest.raises(StoreBusyError, match="run the command again"):
                next(pruner.run(plan))
    prune(url, "365d")
    exact(url, day(365))
