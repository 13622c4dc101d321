"""The doctor compares counters with events: rows that another program deletes stay counted."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.support.rules import alter
from tests.support.stored import DAY, NOON, SECOND, record, store

from sidelight import Store
from sidelight.store.agreement import Agreement, compare_counters
from sidelight.store.retention import Pruner

DAYS = 4
MANY = [record(at=NOON - n % DAYS * DAY, artifact=f"a{n % 3}", bits=n + 1) for n in range(40)]
TODAY, YESTERDAY = (
    datetime.fromtimestamp(at // SECOND, UTC).date().isoformat() for at in (NOON, NOON - DAY)
)
OF_EARLIEST = f"occurred_at < {NOON - (DAYS - 2) * DAY}"


def table(url, name):
    return name if url.startswith("sqlite") else f"sidelight.{name}"


def compared(url, most=1_000_000):
    with Store(url) as opened:
        return compare_counters(opened, most)


@pytest.mark.parametrize(
    ("change", "most", "missing", "uncounted"),
    [
        pytest.param("", 1000, 0, 0, id="nothing"),
        pytest.param("", 12, 0, 0, id="nothing, in part"),
        pytest.param("DELETE FROM {events} WHERE artifact_id = 'a1'", 1000, 13, 0, id="some"),
        pytest.param("DELETE FROM {events}", 1000, 40, 0, id="all"),
        pytest.param("DELETE FROM {events}", 12, 40, 0, id="all, in part"),
        pytest.param(f"DELETE FROM {{events}} WHERE {OF_EARLIEST}", 12, 10, 0, id="a whole day"),
        pytest.param("DELETE FROM {event_counts}", 1000, 0, 40, id="the counters"),
        pytest.param(
            f"DELETE FROM {{event_counts}} WHERE day = '{TODAY}'", 1000, 0, 10, id="of a day"
        ),
    ],
)
def test_rows_that_another_program_deletes_are_missed(url, change, most, missing, uncounted):
    store(url, MANY)
    if change:
        names = {name: table(url, name) for name in ("events", "event_counts")}
        alter(url, change.format(**names))
    found = compared(url, most)
    assert (found.missing, found.uncounted) == (missing, uncounted)
    is_part = most == 12
    assert (found.since, found.earlier) == ((TODAY, DAYS - 1) if is_part else ("", 0))


def test_a_partition_that_is_detached_is_missed(url):
    if url.startswith("sqlite"):
        pytest.skip("SQLite has no partitions")
    store(url, MANY)
    moment = datetime.fromtimestamp(NOON // SECOND, UTC)
    alter(url, f"ALTER TABLE sidelight.events DETACH PARTITION sidelight.events_{moment:%Y_%m}")
    assert compared(url).missing


def test_what_sidelight_deletes_itself_is_not_missed(url):
    store(url, MANY, [record(organization="acme", artifact="b1", bits=100)])
    with Store(url) as opened:
        opened.erase(organization_id="acme")
    assert compared(url) == Agreement(40, "", 0, 0, 0)
    with Pruner(url) as pruner:
        [*pruner.run(pruner.plan(YESTERDAY), counts=False)]
    assert compared(url) == Agreement(20, "", 0, 0, 0)
