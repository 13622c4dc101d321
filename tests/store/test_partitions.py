"""PostgreSQL's partitions: created ahead of need, also for late events; dropped when pruned."""

import contextlib
import threading
import time
from contextlib import closing
from datetime import UTC, datetime

import psycopg
import pytest
from tests.support import version1
from tests.support.postgres import connected, new_database
from tests.support.stored import DAY, deliver, exact, prepared, record, store, together

from sidelight import Store
from sidelight.exceptions import SinkRefusedError, SinkUnavailableError
from sidelight.store import ingest, partitions, steps
from sidelight.store.engine import connect
from sidelight.store.partitions import Partition, month_of, partitions_of
from sidelight.store.retention import Pruner
from sidelight.store.sink import StoreSink

NOW = time.time_ns()
YEARS = 365 * DAY


@pytest.fixture
def url(tmp_path):
    return prepared("postgresql", tmp_path)


def found(url):
    engine = connect(url, create=False)
    with engine.begin() as connection:
        listed = partitions_of(connection.exec_driver_sql)
    engine.dispose()
    return listed


def names(url):
    return [each.name for each in found(url)]


def named(ns):
    return f"events_{datetime.fromtimestamp(ns // 10**9, UTC):%Y_%m}"


def rows_in(url, table):
    with connected(url) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


@pytest.mark.parametrize(
    ("moment", "begin", "end"),
    [
        ("2026-07-25T12:00:00.123456", "2026-07-01", "2026-08-01"),
        ("2026-12-31T23:59:59.999999", "2026-12-01", "2027-01-01"),
        ("2024-02-29", "2024-02-01", "2024-03-01"),
        ("2027-01-01", "2027-01-01", "2027-02-01"),
        ("1970-01-01", "1970-01-01", "1970-02-01"),
    ],
)
def test_months(moment, begin, end):
    def ns(text):
        return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 10**6) * 1000

    assert month_of(ns(moment)) == (ns(begin), ns(end))


def test_a_new_store_has_this_month_and_the_next_when_it_is_near(url):
    store(url, [record()])
    begin, end = month_of(NOW)
    made = names(url)
    assert named(begin) in made
    assert made[-1] == "events_rest"
    assert (named(end) in made) == (end - time.time_ns() < 15 * DAY)


def test_the_next_month_is_created_ahead_of_need(url, monkeypatch):
    with closing(StoreSink(url)) as sink:
        sink.write([record(at=NOW)], {})
        later = month_of(NOW)[1] + 20 * DAY  # half of the next month is over
        monkeypatch.setattr(time, "time_ns", lambda: later)
        sink.write([record(at=later)], {})
    assert {named(later), named(month_of(later)[1])} <= set(names(url))
    assert rows_in(url, named(later)) == 1


def test_late_events_have_their_month(url):
    times = [NOW - 2 * YEARS, NOW - 2 * YEARS + 40 * DAY]
    store(url, [record(at=at) for at in [*times, NOW]])
    assert [rows_in(url, name) for name in (*map(named, times), "events_rest")] == [1, 1, 0]
    spans = [each.span for each in found(url)[:-1]]
    assert all(month_of(begin) == (begin, end) for begin, end in spans)


@pytest.mark.parametrize(
    "at",
    [0, 1, NOW - 30 * YEARS, NOW + 3 * YEARS, NOW + 90 * DAY],
    ids=["1970", "after 1970", "30 years ago", "in 3 years", "in 90 days"],
)
def test_a_wrong_clock_creates_no_partition(url, at):
    store(url, [record()])
    before = found(url)
    store(url, [record(at=at, artifact="odd"), record(at=NOW)])
    assert found(url) == before
    assert rows_in(url, "events_rest") == 1
    with Store(url) as opened:
        assert [event.occurred_ns for event in opened.timeline("odd")] == [at]


def test_events_leave_the_default_partition_when_their_month_comes(url, monkeypatch):
    at = NOW + 3 * YEARS
    records = [record(at=at + n, artifact=n) for n in range(50)]
    store(url, records, [record(at=NOW + 6 * YEARS)])
    assert rows_in(url, "events_rest") == 51
    monkeypatch.setattr(time, "time_ns", lambda: at)
    store(url, records, [record(at=at + 100)])
    assert (rows_in(url, named(at)), rows_in(url, "events_rest")) == (51, 1)
    assert len(exact(url)) == 52


def test_relays_need_the_same_month_at_once(url):
    store(url, [record()])

    def relay(n):
        with closing(StoreSink(url)) as sink:
            for month in range(12):
                deliver(sink, [record(at=NOW - 5 * YEARS + 31 * DAY * month, artifact=n)])

    together(*(lambda n=n: relay(n) for n in range(4)))
    assert len(exact(url)) == 49
    assert len(names(url)) == len(set(names(url)))


def test_a_month_that_another_relay_creates_meanwhile_makes_no_poison_record(url, monkeypatch):
    at = NOW - 2 * YEARS
    rows_of = ingest.rows_of

    def meanwhile(*arguments):
        """The COPY has begun when the first row is asked for."""
        monkeypatch.setattr(ingest, "rows_of", rows_of)
        store(url, [record(at=at, artifact="another")])  # the first has its lock
        yield from rows_of(*arguments)

    with closing(StoreSink(url)) as sink:
        sink.write([record()], {})
        sink._partitions.ensure = lambda *_: None
        monkeypatch.setattr(ingest, "rows_of", meanwhile)
        with pytest.raises(SinkUnavailableError, match="violates partition constraint"):
            sink.write([record(at=at + 1)], {})
        sink.write([record(at=at + 1)], {})
    assert rows_in(url, named(at)) == 2


@contextlib.contextmanager
def reading(url):
    """A client has a query open on all events."""
    with psycopg.connect(url, options="-c search_path=sidelight") as connection:
        connection.execute("SELECT count(*) FROM events")
        yield


def test_the_default_partition_takes_events_while_a_reader_blocks(url, monkeypatch):
    monkeypatch.setattr(partitions, "_RETRY", 0.0)
    with closing(StoreSink(url)) as sink:
        sink.write([record()], {})
        with reading(url):
            sink.write([record(at=NOW - 2 * YEARS, bits=1)], {})
            assert rows_in(url, "events_rest") == 1
        sink.write([record(at=NOW - 2 * YEARS, bits=2)], {})
    assert rows_in(url, named(NOW - 2 * YEARS)) == 2
    assert rows_in(url, "events_rest") == 0


#: How questions, the export and the page, and `tail` read: page by page.
READERS = {
    "events": lambda opened: opened.events(),
    "pages": lambda opened: opened.pages(),
    "follow": lambda opened: opened.follow(last=3000),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_in_the_middle_holds_up_no_relay(url, reader):
    """Between two pages it holds no transaction; so a new month is made at once."""
    at = NOW - DAY
    with closing(StoreSink(url)) as sink, contextlib.ExitStack() as stack:
        for n in range(6):
            sink.write([record(at=at + n, bits=1000 * n + k) for k in range(1000)], {})
        opened = stack.enter_context(Store(url))
        answers = iter(READERS[reader](opened))
        next(answers, None)
        for n, at in enumerate((NOW - YEARS, NOW - 2 * YEARS)):
            sink.write([record(at=at, bits=n)], {})
        assert {named(NOW - YEARS), named(NOW - 2 * YEARS)} <= set(names(url))
        with connected(url) as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
            query += " AND datname = current_database()"
            assert connection.execute(query).fetchone() == (0,)
        next(answers, None)


def test_a_relay_without_the_right_to_make_tables_goes_on(url):
    store(url, [record()])
    with psycopg.connect(url, autocommit=True) as connection:
        user = f"writer_{url.rpartition('_')[2]}"
        connection.execute(f"CREATE ROLE {user} LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA sidelight TO {user}")
        rights = "SELECT, INSERT, UPDATE, DELETE"
        connection.execute(f"GRANT {rights} ON ALL TABLES IN SCHEMA sidelight TO {user}")
        try:
            theirs = url.replace("sidelight@", f"{user}@")
            store(theirs, [record(at=NOW - 2 * YEARS)], [record(at=NOW)])
        finally:
            connection.execute(f"DROP OWNED BY {user}")
            connection.execute(f"DROP ROLE {user}")
    assert rows_in(url, "events_rest") == 1
    with Store(url) as opened:
        assert opened.size() == 3


# -- pruning ---------------------------------------------------------------------------------


def over_months(count=24):
    return [record(at=NOW - n * 30 * DAY, artifact=n, bits=n) for n in range(count)]


def test_pruned_months_are_dropped_and_not_created_again(url):
    store(url, over_months(), [record(at=0, bits=7)])
    with Pruner(url) as pruner:
        plan = pruner.plan("365d")
        taken = sum(pruner.run(plan))
    assert len(plan.partitions) >= 10
    assert named(NOW - 20 * 30 * DAY) in plan.partitions
    assert taken == plan.events + plan.artifacts
    kept = month_of(NOW - 365 * DAY)[0]
    assert all(each.span[0] >= kept for each in found(url)[:-1])
    assert rows_in(url, "events_rest") == 0
    before = found(url)
    with pytest.raises(SinkRefusedError, match="is pruned"):
        store(url, over_months())
    assert found(url) == before
    exact(url, plan.kept_since)


def test_a_month_that_is_always_read_is_emptied_instead(url, monkeypatch):
    monkeypatch.setattr(steps, "_LOCK_TIMEOUT", 0.3)
    store(url, over_months())
    with reading(url), Pruner(url) as pruner:
        plan = pruner.plan("365d")
        assert len(plan.partitions) >= 10
        assert sum(pruner.run(plan)) == plan.events + plan.artifacts
    exact(url, plan.kept_since)
    assert {*plan.partitions} <= {*names(url)}
    with Pruner(url) as pruner:
        assert pruner.plan("365d").partitions == plan.partitions
        assert sum(pruner.run(pruner.plan("365d"))) == 0
    assert not {*plan.partitions} & {*names(url)}


def test_no_relay_waits_long_for_a_drop(url, monkeypatch):
    """The pruner asks for the lock repeatedly, each time for at most a tenth of a second."""
    monkeypatch.setattr(steps, "_LOCK_TIMEOUT", 2.0)
    store(url, over_months())
    waited = []
    over = threading.Event()

    def relay():
        with closing(StoreSink(url)) as sink:
            while not over.is_set():
                begun = time.monotonic()
                deliver(sink, [record(at=time.time_ns())])
                waited.append(time.monotonic() - begun)

    thread = threading.Thread(target=relay)
    with reading(url), Pruner(url) as pruner:
        thread.start()
        with closing(pruner.run(pruner.plan("365d"))) as dropping:
            next(dropping)  # the pruner has given up, and deletes the first rows
        over.set()
        thread.join()
    assert len(waited) > 5
    assert sorted(waited)[len(waited) // 2] < 0.5


def test_events_from_before_the_upgrade_are_one_partition_with_their_old_indexes():
    url = new_database()
    version1.create(url)
    engine = version1.engine_of(url)
    with engine.connect() as relay:
        records = [record(at=NOW - n * DAY) for n in range(200)]
        version1.write(relay, [*records, record(at=NOW + YEARS)])
    with connected(url) as connection:
        before = dict(connection.execute("SELECT oid, relname FROM pg_class WHERE relkind = 'i'"))
        store(url, [record(at=NOW)])
        own = connection.execute(
            "SELECT indexrelid, indisvalid FROM pg_index WHERE indrelid = 'events_before'::regclass"
        ).fetchall()
        rest = connection.execute("SELECT count(*) FROM events_rest").fetchone()[0]
    engine.dispose()
    assert len(own) == 6
    assert all(valid and oid in before for oid, valid in own)
    assert rest == 1
    assert found(url)[0] == Partition("events_before", (0, month_of(NOW)[1]))
