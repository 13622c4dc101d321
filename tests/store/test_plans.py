"""The plans of the databases: no question examines all events to answer about a few."""

import re
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event
from tests.support.simulated import records_of, simulate
from tests.support.stored import BACKENDS, NOON, SECOND, batches_of, record, store

from sidelight import Store
from sidelight.record import Expectation
from sidelight.store.tables import EVENTS

LIVES = simulate(200)
DAY = datetime.fromtimestamp(NOON // SECOND, UTC).date()
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
    "a host": lambda store: store.counts(host="h", time_limit=0),
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
    "unknown types": lambda store: store.unknown_names("type", ["recieved", "failed"]),
    "costs": lambda store: store.costs(latest=20),
    "artifacts of an organization": lambda store: store.artifacts(
        organization_id="north", limit=20
    ),
    "artifacts of no organization": lambda store: store.artifacts(organization_id="", limit=20),
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
    """The plan of each query of a question that reads events, artifacts or costs."""
    asked = []
    engine = opened._engine

    def note(_connection, _cursor, statement, parameters, *_):
        if re.search("FROM (events|artifacts|costs)", statement):
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
        tables = re.compile("events|artifacts|costs")
        lines = [line for line in plan.splitlines() if tables.search(line)]
        lines = [line for line in lines if "json_each" not in line]
        assert any("USING" in line or "Index" in line for line in lines), plan
        assert not any("SCAN" in line and "USING" not in line for line in lines), plan
        assert not re.search("Seq Scan on (events|artifacts|costs)", plan)
        if "artifact" in question.split()[-1]:  # not all of a type, to find those of an artifact
            assert not re.search("events_by_(type|organization)", plan), plan
        if question.startswith("artifacts of"):
            assert "artifacts_by_organization" in plan
            assert not re.search(r"Filter: .*organization|MULTI-INDEX OR", plan)


@pytest.mark.parametrize("question", ["a service", "a host"])
def test_processes_are_read_once_and_not_for_each_event(asked, question):
    """A store of a year knows 50,000 processes, of which no index finds those of a host."""
    *_, plan = plans(asked, QUESTIONS[question])
    assert re.search("hashed SubPlan|LIST SUBQUERY", plan), plan
    assert not re.search("Join", plan), plan


def test_months_before_the_first_event_of_the_artifacts_are_not_read(tmp_path):
    """Of a year in PostgreSQL, the latencies of a day read the partitions since that day."""
    old = [record("received", NOON - days * 86_400 * SECOND, artifact="old") for days in (40, 80)]
    store(url := BACKENDS["postgresql"](tmp_path), old, records_of(LIVES))
    with closing(Store(url)) as opened:
        asked = [*plans(opened, lambda store: store.latency("received", "completed", since=DAY))]
        assert len(opened.timeline("old")) == 2
    of_artifacts = [plan for plan in asked if re.search("(?s)events.*artifact_id = ANY", plan)]
    assert of_artifacts
    for plan in of_artifacts:
        assert min(re.findall(r"events_\d{4}_\d\d", plan)) == f"events_{DAY:%Y_%m}", plan


@pytest.mark.parametrize("question", ["latency", "funnel"])
def test_journeys_find_events_by_their_artifacts(asked, question):
    if asked._engine.dialect.name == "sqlite":  # PostgreSQL decides by its statistics
        assert any("events_by_artifact" in plan for plan in plans(asked, QUESTIONS[question]))


@pytest.mark.parametrize("index", EVENTS.indexes)
def test_every_index_has_a_question_that_reads_along_it(asked, index):
    """Each index costs each event bytes and time: see `benchmarks.store_cost`."""
    of_a_partition = "_".join(("events_rest", *EVENTS.indexes[index], "idx"))
    names = rf"\b({index}|{of_a_partition}|events_\d+_\d+_{of_a_partition[12:]})\b"
    assert any(re.search(names, plan) for plan in plans(asked, INDEXED[index]))


def test_shared_artifacts_are_found_in_the_order_of_the_table(asked):
    (plan,) = plans(asked, Store.shared_artifacts)
    assert "artifacts_by_last_event" not in plan


@pytest.mark.parametrize("question", ["one attribute", "counts of failures", "a service"])
def test_a_search_examines_one_window_of_known_size(asked, question):
    """The first query finds where the window ends; it reads no more than the window has."""
    first, *_ = plans(asked, QUESTIONS[question])
    assert "TEMP B-TREE" not in first
    assert not re.search(r"(^|-> +)(Incremental )?Sort ", first, re.MULTILINE)
