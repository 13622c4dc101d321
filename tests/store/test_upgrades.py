"""A store of version 1, with data: upgraded once, whoever comes, and nothing in it is changed."""

import random
import threading
import time
from collections import Counter
from contextlib import closing

import pytest
from sqlalchemy import inspect
from tests.support import version1
from tests.support.stored import DAY, SECOND, batches_of, deliver, record, store

from sidelight import Store
from sidelight.exceptions import StoreError
from sidelight.store import schema
from sidelight.store.retention import Pruner
from sidelight.store.sink import StoreSink

NOW = time.time_ns()
YEARS = 365 * DAY


def old(count, seed=0):
    """Events of the last year, and one of a clock that is years ahead."""
    chance = random.Random(seed)
    return [
        *(
            record(
                chance.choice(["made", "sent"]),
                NOW - chance.randrange(YEARS),
                artifact=f"a{chance.randrange(count // 4)}",
                bits=chance.getrandbits(64),
            )
            for _ in range(count)
        ),
        record("ahead", NOW + 3 * YEARS, artifact="a0"),
    ]


@pytest.fixture
def relay(url):
    """The connection of a relay of version 1, which goes on through the upgrade."""
    version1.create(url)
    engine = version1.engine_of(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def records(relay):
    made = old(300)
    version1.write(relay, made)
    return made


def layout(url):
    """Tables, their columns and their indexes, as the database has them."""
    engine = schema.connect(url, create=False)
    with engine.begin() as connection:
        seen = inspect(connection)
        where = {"schema": "sidelight"} if connection.dialect.name == "postgresql" else {}
        names = [name for name in seen.get_table_names(**where) if name in schema.metadata.tables]
        found = {
            name: (
                [
                    (c["name"], str(c["type"]), c["nullable"])
                    for c in seen.get_columns(name, **where)
                ],
                sorted(map(described, seen.get_indexes(name, **where))),
                seen.get_pk_constraint(name, **where)["constrained_columns"],
            )
            for name in names
        }
    engine.dispose()
    assert found.keys() == schema.metadata.tables.keys()
    return found


def described(index):
    kind = index.get("dialect_options", {}).get("postgresql_using")
    return index["name"], index["column_names"], kind


def content(url):
    with Store(url) as opened:
        events = list(opened.events())
        assert opened.size() == len(events)
        by_day = Counter((e.organization_id, e.type, e.occurred_at.date()) for e in events)
        assert {(c.organization_id, c.type, c.day): c.count for c in opened.counts()} == by_day
        assert Counter(e.artifact_id for e in events) == {
            a.artifact_id: a.events for a in opened.artifacts()
        }
    return events


def test_all_is_there_after_the_upgrade_and_is_laid_out_as_in_a_new_store(url, records, tmp_path):
    with pytest.raises(StoreError, match="schema version 1"):
        Store(url)
    store(url, [record("new", NOW, artifact="b")])
    assert len(content(url)) == len(records) + 1
    upgraded = layout(url)
    engine = schema.connect(url, create=False)
    with engine.begin() as connection:
        for table in reversed(schema.metadata.sorted_tables):
            connection.exec_driver_sql(f"DROP TABLE {table.name}")
    engine.dispose()
    schema.connect(url, create=True).dispose()
    assert layout(url) == upgraded


def test_it_is_upgraded_once_by_whoever_comes_first(url, records, monkeypatch):
    taken = []

    def step(connection):
        taken.append(threading.current_thread().name)
        first(connection)

    first, *others = schema.UPGRADES
    monkeypatch.setattr(schema, "UPGRADES", (step, *others))
    problems = []

    def write(n):
        try:
            with closing(StoreSink(url)) as sink:
                deliver(sink, [record("new", NOW - n * SECOND, artifact="b")])
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(taken) == 1
    assert len(content(url)) == len(records) + 5


def test_a_relay_of_before_goes_on_writing(url, relay, records):
    store(url, [record("new", NOW, artifact="b")])
    more = old(100, seed=1)[:-1]
    version1.write(relay, more)
    next_year = [record("ahead", NOW + YEARS, artifact="c")]
    version1.write(relay, next_year)
    store(url, more, next_year)  # once more, by one of this version
    assert len(content(url)) == len(records) + len(more) + 2


def test_what_is_delivered_again_after_the_upgrade_is_known(url, records):
    store(url, *batches_of(records, 70))
    assert len(content(url)) == len(records)


def test_what_was_there_before_is_pruned_a_bit_at_a_time(url, records):
    store(url, [record("new", NOW, artifact="b")])
    with Pruner(url) as pruner:
        plan = pruner.plan("100d")
        assert sum(pruner.run(plan)) == plan.events + plan.artifacts > 0
        assert plan.partitions == ()
    left = [moment for _, moment in records if moment.time >= NOW // DAY * DAY - 100 * DAY]
    with Store(url) as opened:
        assert opened.size() == sum(1 for _ in opened.events()) == len(left) + 1


def test_a_dry_run_upgrades_nothing(url, records):
    with pytest.raises(StoreError, match="schema version 1"):
        Pruner(url, dry=True)
    with Pruner(url) as pruner:
        assert pruner.plan("100d").events > 0
