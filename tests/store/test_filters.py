"""Filters on events: the answers equal the truth of simulated events, on each database."""

import re
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.support.simulated import POINTS, records_of, simulate
from tests.support.stored import BACKENDS, DAY, NOON, batches_of, record, sqlite, store

from sidelight import Store
from sidelight.exceptions import QueryError
from sidelight.store import selection
from sidelight.store.attributes import CREATE_INDEX, Condition
from sidelight.store.engine import connect

LIVES = simulate(200)


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def filled(request, tmp_path_factory):
    url = BACKENDS[request.param](tmp_path_factory.mktemp("filled"))
    store(url, *batches_of(records_of(LIVES), 500))
    return url


@pytest.fixture
def asked(filled):
    with closing(Store(filled)) as opened:
        yield opened


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_counted_events_come_in_the_order_of_the_counters(backend, tmp_path):
    url = BACKENDS[backend](tmp_path)
    owners = ["b", "a'b", None, "a"]
    ages = [9_999 * DAY, 10_000 * DAY]  # the number of the day gets a digit more
    store(url, [record(at=at, organization=owner) for owner in owners for at in ages])
    with closing(Store(url)) as opened:
        assert opened.counts(point="shop:make") == opened.counts()


def is_mail(life):
    return life.kind == "mail"


def received(condition):
    return [life.artifact for life in LIVES for _ in range(receipts(life)) if condition(life)]


def receipts(life):
    return 2 if life.fate == "rerun" else 1


# -- conditions on attributes --------------------------------------------------------------------

VALUES = {
    "number": 12,
    "float": 0.12345678901234568,
    "large": 1e300,
    "digits": "12",
    "word": "mail",
    "umlaut": "Übung",
    "empty": "",
    "sign": "=>",
    "yes": True,
    "nothing": None,
    "list": [1, 2],
    "object": {"kind": "mail"},
    'a "quoted" name': 1,
    "error.type": "ValueError",
    "nul": "a\0b\0\0",
    "escaped": "\\u0000",
}


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("number=12", True),
        ("number=12.0", True),
        (" number >= 12 ", True),
        ("number>12", False),
        ("number<12.5", True),
        ("number!=12", False),
        ("number!=13", True),
        ("number<=11", False),
        ("number=mail", False),
        ("number>aaa", False),
        ("float=0.12345678901234568", True),
        ("float>0.12345678901234567", True),
        ("float=0.123456789012346", False),
        ("large>1000000000000000000000", True),
        ("large=1e300", True),
        ("digits=12", True),
        ("digits>5", False),
        ("digits!=12", False),
        ("word=mail", True),
        ('word="mail"', True),
        ('word!=""', True),
        ('empty=""', True),
        ('sign="=>"', True),
        ("word!=mail", False),
        ("word>=Mail", True),
        ("word<n", True),
        ("umlaut=Übung", True),
        ("umlaut>Z", True),
        ("yes=true", True),
        ("yes=false", False),
        ("yes!=false", True),
        ("yes=1", False),
        ("nothing=null", True),
        ("nothing!=null", False),
        ("word=null", False),
        ("missing=1", False),
        ("missing!=1", False),
        ("list=1", False),
        ("list!=1", True),
        ("object=mail", False),
        ('a "quoted" name=1', True),
        ("error.type=ValueError", True),
        ("word=mail' OR '1'='1", False),
        ("escaped=\\u0000", True),
    ],
)
def test_a_condition_means_the_same_on_each_database(unusual, where, found):
    assert [event.artifact_id for event in unusual.events(where=where)] == ["a1"] * found


@pytest.fixture(scope="module", params=[*sorted(BACKENDS), "indexed"])
def unusual(request, tmp_path_factory):
    backend = "postgresql" if request.param == "indexed" else request.param
    url = BACKENDS[backend](tmp_path_factory.mktemp("unusual"))
    store(url, [record(attributes=VALUES), record(artifact="a2", attributes=None)])
    if request.param == "indexed":
        add_index(url)
    with closing(Store(url)) as opened:
        yield opened


def add_index(url):
    engine = connect(url, create=False)
    with engine.begin() as connection:
        connection.exec_driver_sql(CREATE_INDEX)
    engine.dispose()


def test_the_page_creates_the_index_that_the_store_uses():
    page = Path(__file__).parents[2] / "docs" / "how-to" / "query-the-store.md"
    (sql,) = re.findall(r"```sql\n(.*?)```", page.read_text(), re.DOTALL)
    assert " ".join(sql.split()) == CREATE_INDEX


def test_an_index_of_attributes_finds_few_events_at_once(tmp_path, monkeypatch):
    """Without it a search ends with the time limit; with it a rare value is found all the same."""
    monkeypatch.setattr("sidelight.store.selection._FIRST_WINDOW", 20)
    monkeypatch.setattr("sidelight.store.selection._FEW", 5)
    url = BACKENDS["postgresql"](tmp_path)
    events = [
        record(at=NOON + n, bits=n, artifact=n, attributes={"order": n, "odd": n % 2})
        for n in range(200)
    ]
    store(url, events[:150])

    def found(where, **named):
        with closing(Store(url)) as opened:
            answer = opened.events(where=where, time_limit=0, **named)
            return [event.attributes["order"] for event in answer], answer.left_out is None

    assert found("order=3", newest_first=True) == ([], False)
    add_index(url)
    store(url, events[150:])
    for newest_first in (True, False):
        assert found("order=3", newest_first=newest_first) == ([3], True)
        assert found(["order=193", "odd=1"], newest_first=newest_first) == ([193], True)
        assert found(["order=193", "odd=0"], newest_first=newest_first) == ([], True)
        assert found("order=193", type="other", newest_first=newest_first) == ([], True)
        assert found("odd=1", newest_first=newest_first)[1] is False  # too many: window by window
        assert found("order>3", newest_first=newest_first)[1] is False
    clause = Condition.parse("order=3").containment(0)
    engine = connect(url, create=False)
    with engine.begin() as connection:  # a table of a few hundred rows is not worth an index
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        explain = text(f"EXPLAIN SELECT 1 FROM events WHERE {clause.text}")
        named = {name: each.value for name, each in clause._bindparams.items()}
        plan = connection.execute(explain, named).all()
    engine.dispose()
    assert "Bitmap Index Scan" in str(plan)


def test_a_row_that_is_no_json_meets_no_condition(tmp_path):
    store(url := sqlite(tmp_path), [record(attributes={"n": 1}), record(attributes={"n": 1})])
    engine = connect(url, create=False)
    with engine.begin() as connection:
        connection.execute(text("UPDATE events SET attributes = '{' WHERE rowid = 1"))
    engine.dispose()
    with Store(url) as opened:
        assert len(list(opened.events(where="n=1"))) == 1


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("words", "where: 'words' is no condition; write name=value, or one of != > >= < <="),
        ("=5", "'=5' is no condition"),
        ("size>", "'size>' has no value; write one behind >, or size>\"\" for the empty text"),
        ("size= ", "'size= ' has no value; write one behind ="),
        ("size=>5", "=> in 'size=>5' is no comparison; write one of = != > >= < <=, and a text"),
        ("size==5", 'a text that begins with one in quotes: size="=5"'),
        ("", "'' is no condition"),
        (5, "5 is no condition"),
        (["words>1", "words"], "'words' is no condition"),
        ("yes>true", "'yes>true' compares true, which has no order; write yes=true or yes!=true"),
    ],
    ids=repr,
)
def test_what_is_no_condition_is_refused(asked, where, message):
    for question in (asked.events, asked.counts, asked.follow):
        with pytest.raises(QueryError, match=re.escape(message)):
            question(where=where)


def test_a_condition_is_read():
    assert Condition.parse("a.b >= 1e3")[:4] == ("a.b", ">=", "number", 1000.0)
    assert Condition.parse("text='x=y'")[:4] == ("text", "=", "text", "'x=y'")


# -- filters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "condition"),
    [
        ({"where": "words>500"}, lambda life: life.words > 500),
        ({"where": ["words>500", "kind=mail"]}, lambda life: is_mail(life) and life.words > 500),
        ({"point": POINTS["phone"]}, lambda life: life.kind == "phone"),
        (
            {"point": list(POINTS.values()), "organization_id": "north"},
            lambda life: life.organization == "north",
        ),
        ({"type": "received", "outcome": "succeeded", "where": "words=1000"}, lambda _: False),
        (
            {"where": "kind=mail", "organization_id": ""},
            lambda life: is_mail(life) and life.organization is None,
        ),
        ({"where": "kind=mail", "type": ["received", "failed"]}, is_mail),
        (
            {"where": "kind=mail", "since": "2026-07-26"},
            lambda life: is_mail(life) and str(life.day) >= "2026-07-26",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_filters_select_the_events_that_they_describe(asked, filters, condition):
    expected = received(condition)
    found = list(asked.events(**filters))
    assert sorted(event.artifact_id for event in found) == sorted(expected)
    places = [(event.occurred_ns, event.event_id) for event in found]
    assert places == sorted(places)
    assert list(asked.events(newest_first=True, **filters)) == found[::-1]
    assert list(asked.events(limit=3, **filters)) == found[:3]
    assert asked.events(**filters).left_out is None
    counted = asked.counts(**filters)
    assert sum(each.count for each in counted) == len(found)
    assert {(c.organization_id, c.type, c.day): c.count for c in counted} == Counter(
        (event.organization_id, event.type, event.occurred_at.date()) for event in found
    )


def test_failures_are_found_and_counted(asked):
    failures = sum(life.failures for life in LIVES)
    assert len(list(asked.events(outcome="failed"))) == failures
    assert sum(each.count for each in asked.counts(outcome="failed")) == failures
    assert sum(each.count for each in asked.counts(where="error.type=OSError")) == sum(
        life.fate == "failed_late" for life in LIVES
    )
    with pytest.raises(QueryError, match="outcome: 'broken' is not an outcome; give one of start"):
        asked.events(outcome="broken")
    with pytest.raises(QueryError, match="point: 5 is not a point"):
        asked.events(point=5)


def test_one_artifact_and_one_trace_are_filtered_too(tmp_path, filled):
    life = next(life for life in LIVES if life.fate == "rerun")
    with Store(filled) as opened:
        found = opened.timeline(life.artifact, where=f"words={life.words}")
        assert [event.type for event in found] == ["received", "received"]
        assert sum(c.count for c in opened.counts(artifact_id=life.artifact)) == life.events
    traces = [
        record(trace=bytes(range(16)), attributes={"n": n}, organization="o") for n in range(5)
    ]
    store(url := sqlite(tmp_path), traces)
    with Store(url) as opened:
        trace = bytes(range(16)).hex()
        assert len(list(opened.events(trace_id=trace, where="n>2"))) == 2
        assert sum(c.count for c in opened.counts(trace_id=trace, where="n>2")) == 2
        assert not opened.counts(trace_id=trace, where="n>2", organization_id="p")
        assert not opened.counts(trace_id=trace, type="other")


def test_a_follower_filters(filled):
    with closing(Store(filled)) as opened:
        latest = opened.follow(last=2, where="kind=mail")
        expected = list(opened.events(where="kind=mail", newest_first=True, limit=2))[::-1]
        assert list(islice(latest, 2)) == expected
        following = opened.follow(where="news=yes", pause=0.01)
        store(
            filled,
            [record("made", NOON - 1, attributes={"news": "no"}, artifact="n1")],
            [record("made", NOON - 1, attributes={"news": "yes"}, artifact="n2")],
        )
        assert next(following).artifact_id == "n2"


# -- bounded -------------------------------------------------------------------------------------


def windows_of(monkeypatch, size):
    monkeypatch.setattr(selection, "_FIRST_WINDOW", size)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("filters", [{}, {"type": ["received", "failed"]}, {"organization_id": ""}])
def test_no_window_leaves_an_event_out(asked, monkeypatch, newest_first, filters):
    whole = list(asked.events(where="kind=mail", newest_first=newest_first, **filters))
    for size in (1, 7, 64):
        windows_of(monkeypatch, size)
        assert list(asked.events(where="kind=mail", newest_first=newest_first, **filters)) == whole


def test_many_events_of_one_moment_do_not_hold_a_search_up(url, monkeypatch):
    store(url, [record(at=NOON, attributes={"n": n}, bits=n) for n in range(20)])
    windows_of(monkeypatch, 3)
    with Store(url) as opened:
        for newest_first in (True, False):
            assert len(list(opened.events(where="n>=0", newest_first=newest_first))) == 20
            found = opened.events(where="n>=0", type="made", newest_first=newest_first)
            assert len(list(found)) == 20


@pytest.mark.parametrize("newest_first", [True, False])
def test_what_was_left_out_lies_beyond_a_whole_millisecond(tmp_path, monkeypatch, newest_first):
    """Words show no more of a time; a list of all from there on has no gap."""
    windows_of(monkeypatch, 10)
    url = sqlite(tmp_path)
    store(url, [record("made", 1_000_000 * 10**9 + n * 37_001) for n in range(60)])
    with Store(url) as opened:
        every = list(opened.events(newest_first=newest_first))
        found = opened.events(
            outcome=["succeeded", "emitted"], newest_first=newest_first, time_limit=0
        )
        listed = list(found)
    at = found.left_out.replace(microsecond=found.left_out.microsecond // 1000 * 1000)
    assert at == found.left_out or not newest_first
    assert 0 < len(listed) < len(every)
    assert listed == every[: len(listed)]
    left_out = every[len(listed) :]
    assert all((e.occurred_at < at) if newest_first else (e.occurred_at >= at) for e in left_out)


def test_a_search_ends_in_time_and_says_what_it_left_out(asked, monkeypatch):
    windows_of(monkeypatch, 50)
    every = list(asked.events(newest_first=True))
    found = asked.events(where="words>=0", newest_first=True, time_limit=0)
    listed = list(found)
    assert found.left_out is not None
    assert listed == [
        e for e in every[:50] if e.type == "received" and e.occurred_at >= found.left_out
    ]
    oldest = asked.events(where="words>=0", time_limit=0)
    assert listed != list(oldest)
    assert oldest.left_out < datetime(2026, 7, 26, tzinfo=UTC)
    counted = asked.counts(where="words>=0", time_limit=0)
    assert sum(each.count for each in counted) == len(listed)
    assert counted.left_out == found.left_out
    whole = asked.counts(where="words>=0", time_limit=60)
    assert (sum(each.count for each in whole), whole.left_out) == (len(received(bool)), None)
    with pytest.raises(QueryError, match="time_limit: -1 is not a number of seconds"):
        asked.events(time_limit=-1)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_value_that_only_begins_like_json_is_a_text(opening):
    """However deep it seems to be nested."""
    value = opening * 5000
    assert Condition.parse(f"x={value}")[:4] == ("x", "=", "text", value)
