"""The plans of the databases: no question examines all events to answer about a few."""

import re
from contextlib import closing
from datetime import timedelta

import pytest
from sqlalchemy import event
from tests.support.simulated import records_of, simulate
from tests.support.stored import BACKENDS, batches_of, store

from sidelight import Store
from sidelight.record import Expectation
from sidelight.store.tables import EVENTS

LIVES = simulate(200)
EXPECT = Expectation(after="received", one_of=("failed",), within=timedelta(hours=1))
QUESTIONS = {
    "events": lambda store: list(store.events(limit=20, newest_first=True)),
    "one attribute": lambda store: list(store.events(where="words=-1", time_limit=0)),
    "one attribute of a type": lambda store: list(
        store.events(where="words=-1", type=["received", "failed"], time_limit=0)
    ),
    "failures of an organization": lambda store: list(
        store.events(outcome="failed", organization_id="north", time_limit=0)
    ),
    "a service": lambda store: list(store.events(service="shop", time_limit=0)),
    "counts of failures": lambda store: store.counts(outcome="failed", time_limit=0),
    "latency": lambda store: store.latency("received", "completed", time_limit=0),
    "funnel": lambda store: store.funnel(["received", ["completed", "failed"]], time_limit=0),
    "export": lambda store: next(store.pages()),
    "timeline": lambda store: store.timeline("a00001"),
    "failures of an artifact": lambda store: store.timeline("a00001", outcome="failed"),
    "types of one artifact": lambda store: store.timeline(
        "a00001", type=["received", "failed"], organization_id="north"
    ),
    "waits of an artifact": lambda store: store.overdue([EXPECT], artifact_id="a00001"),
    "types": lambda store: store.types(since="1d"),
    "artifacts of an organization": lambda store: store.artifacts(
        organization_id="north", limit=20
    ),
}

INDEXED = {
    "events_by_artifact": QUESTIONS["timeline"],
    "events_by_organization": lambda store: list(store.events(organization_id="north", limit=1)),
    "events_by_type": QUESTIONS["latency"],
    "events_by_trace": lambda store: list(store.events(trace_id="0" * 31 + "1")),
    "events_by_recording": lambda store: next(store.follow(last=1)),
}


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """The last window has no bounds, because no more events than a window has are left."""
    monkeypatch.setattr("sidelight.store.selection._FIRST_WINDOW", 20)


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def asked(request, tmp_path_factory):
    url = BACKENDS[request.param](tmp_path_factory.mktemp("filled"))
    store(url, *batches_of(records_of(LIVES), 500))
    with closing(Store(url)) as opened:
        yield opened


def plans(opened, question):
    """The plan of each query of a question that reads `events` or `artifacts`."""
    asked = []
    engine = opened._engine

    def note(_connection, _cursor, statement, parameters, *_):
        if re.search("FROM (events|artifacts)", statement):
            asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        question(opened)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert asked
    is_sqlite = engine.dialect.name == "sqlite"
    explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
    with engine.connect() as connection:
        if not is_sqlite:  # a table of a few hundred rows is not worth an index
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for statement, parameters in asked:
            rows = connection.exec_driver_sql(f"{explain} {statement}", parameters)
            yield "\n".join(str(row[-1]) for row in rows)


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_query_reads_along_an_index(asked, question):
    for plan in plans(asked, QUESTIONS[question]):
        tables = re.compile("events|artifacts")
        lines = [line for line in plan.splitlines() if tables.search(line)]
        lines = [line for line in lines if "json_each" not in line]
        assert any("USING" in line or "Index" in line for line in lines), plan
        assert not any("SCAN" in line and "USING" not in line for line in lines), plan
        assert not re.search("Seq Scan on (events|artifacts)", plan)
        if "artifact" in question.split()[-1]:  # not all of a type, to find those of an artifact
            assert not re.search("events_by_(type|organization)", plan), plan
        if question == "artifacts of an organization":
            assert "artifacts_by_organization" in plan


@pytest.mark.parametrize("index", EVENTS.indexes)
def test_every_index_has_a_question_that_reads_along_it(asked, index):
    """Each index costs each event bytes and time: see `benchmarks.store_cost`."""
    of_a_partition = "_".join(("events_rest", *EVENTS.indexes[index], "idx"))
    names = rf"\b({index}|{of_a_partition}|events_\d+_\d+_{of_a_partition[12:]})\b"
    assert any(re.search(names, plan) for plan in plans(asked, INDEXED[index]))


@pytest.mark.parametrize("question", ["one attribute", "counts of failures", "a service"])
def test_a_search_examines_one_window_of_known_size(asked, question):
    """The first query finds where the window ends; it reads no more than the window has."""
    first, *_ = plans(asked, QUESTIONS[question])
    assert "TEMP B-TREE" not in first
    assert not re.search(r"(^|-> +)(Incremental )?Sort ", first, re.MULTILINE)
