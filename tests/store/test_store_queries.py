"""Arguments that are refused, times as people write them, and following a store."""

import time
import uuid
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from sqlalchemy import text
from tests.support.stored import NOON, SECOND, deliver, record, sqlite, store, together

from sidelight import Store
from sidelight.exceptions import ConfigurationError, QueryError, SidelightError, StoreError
from sidelight.settings import without_password
from sidelight.store.arrivals import Arrivals
from sidelight.store.sink import StoreSink
from sidelight.store.times import beginning_ns, day_of, end_ns, from_ns

MIDNIGHT = NOON - 12 * 3600 * SECOND


@pytest.fixture
def url(tmp_path):
    made = sqlite(tmp_path)
    store(made, [record("made", NOON + n, artifact=f"a{n}", bits=n) for n in range(5)])
    return made


# -- times -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "begins", "ends"),
    [
        (date(2026, 7, 25), MIDNIGHT, MIDNIGHT + 86_400 * SECOND),
        ("2026-07-25", MIDNIGHT, MIDNIGHT + 86_400 * SECOND),
        ("2026-07-25T12:00:00Z", NOON, NOON),
        ("2026-07-25T12:00:00", NOON, NOON),
        ("2026-07-25 12:00", NOON, NOON),
        ("2026-07-25T14:00:00+02:00", NOON, NOON),
        ("2026-07-25T12:00:00.000001Z", NOON + 1000, NOON + 1000),
        (datetime(2026, 7, 25, 12), NOON, NOON),  # noqa: DTZ001
        (datetime(2026, 7, 25, 12, tzinfo=UTC), NOON, NOON),
        (datetime(2026, 7, 25, 7, tzinfo=timezone(timedelta(hours=-5))), NOON, NOON),
        (date(1960, 1, 1), 0, 0),
        ("9999-12-31", 2**63 - 1, 2**63 - 1),
    ],
    ids=repr,
)
def test_times_are_parsed(when, begins, ends):
    assert beginning_ns("since", when) == begins
    assert end_ns("until", when) == ends


AGES = {"15m": 900, "15 min": 900, "2h": 7200, "1.5d": 129_600, "1w": 604_800, "500ms": 0.5}


@pytest.mark.parametrize(
    ("ago", "seconds"), [*AGES.items(), (timedelta(minutes=1), 60), ("0s", 0)], ids=repr
)
def test_ages_are_parsed(ago, seconds):
    before = time.time_ns()
    found = beginning_ns("since", ago) + seconds * 1e9
    assert before - 2_000 <= found <= time.time_ns() + 2_000


@pytest.mark.parametrize(
    "when", ["yesterday", "", "15", "2026-13-01", "15 parsecs", 5, True, b"2026-07-25", 1.5]
)
def test_anything_else_is_no_time(when):
    with pytest.raises(QueryError, match=r"^since: .* is not a time; write 2026-07-25, .*15m"):
        beginning_ns("since", when)


def test_a_day_is_one_of_utc_and_nanoseconds_are_exact():
    late = datetime(2026, 7, 26, 1, tzinfo=timezone(timedelta(hours=2)))
    assert day_of("since", late) == day_of("since", "2026-07-25T23:59:59Z") == date(2026, 7, 25)
    assert from_ns(NOON + 999) == datetime(2026, 7, 25, 12, tzinfo=UTC)
    assert from_ns(2**63 - 1).year == 2262


# -- arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"artifact_id": 1.5}, "artifact_id: 1.5 is not an id; give text, int or UUID"),
        ({"artifact_id": True}, "artifact_id: True is not an id"),
        ({"organization_id": ["o1"]}, "organization_id: .* is not an id"),
        ({"type": 5}, "type: 5 is not a type; give its name, or a list of names"),
        ({"type": []}, r"type: \[\] is not a type"),
        ({"type": ["made", None]}, "type: .* is not a type"),
        ({"trace_id": "abc"}, "trace_id: 'abc' is not a trace's id; give 32 hexadecimal digits"),
        ({"trace_id": "0x" + "1" * 30}, "is not a trace's id"),
        ({"type": ["made", ""]}, "type: a name is empty in 'made,'; write the name"),
        ({"point": ""}, "point: a name is empty in ''"),
        ({"since": "soon"}, "since: 'soon' is not a time"),
        ({"until": 5}, "until: 5 is not a time"),
        ({"since": "2h", "until": "3h"}, "since: 2h is not earlier than until: 3h; exchange the"),
        ({"since": date(2026, 7, 26), "until": "2026-07-25"}, "since: 2026-07-26 is not earlier"),
        ({"since": "2026-07-25T12:00Z", "until": "2026-07-25T12:00Z"}, "or give a later end"),
        ({"limit": 0}, "limit: 0 is not a count; give a number from 1 to"),
        ({"limit": True}, "limit: True is not a count"),
        ({"limit": "5"}, "limit: '5' is not a count"),
    ],
    ids=repr,
)
def test_invalid_arguments_are_refused_at_once_and_by_name(url, asked, message):
    with Store(url) as opened:
        with pytest.raises(QueryError, match=message) as refused:
            opened.events(**asked)
        if asked.keys() == {"since", "until"}:
            with pytest.raises(QueryError, match=message):
                opened.artifacts(**asked)
        if asked.keys() <= {"artifact_id", "organization_id", "type", "trace_id"}:
            with pytest.raises(QueryError, match=message):
                opened.follow(**asked)
    assert isinstance(refused.value, ValueError | SidelightError)


def test_ids_may_have_the_type_that_they_had_at_the_emission(tmp_path):
    key = uuid.uuid4()
    store(url := sqlite(tmp_path), [record(artifact=key), record(artifact=17)])
    with Store(url) as opened:
        for asked in (key, str(key), 17):
            assert len(opened.timeline(asked)) == 1


def test_a_hostile_argument_is_only_a_value(url):
    hostile = {"artifact_id": "a1' OR '1'='1", "type": "made'; DROP TABLE events; --"}
    with Store(url) as opened:
        assert list(opened.events(**hostile)) == []
        assert opened.size() == 5


# -- the store -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("events.db", "write sqlite:///events.db"),
        ("mysql://host/db", "mysql is not supported"),
        ("sqlite://", "name a file"),
    ],
)
def test_a_bad_url_is_refused(bad, message):
    with pytest.raises(ConfigurationError, match=message):
        Store(bad)


def test_the_environment_names_the_store(url, monkeypatch):
    monkeypatch.setenv("SIDELIGHT_STORE", url)
    with Store() as opened:
        assert (opened.url, opened.size()) == (url, 5)


@pytest.mark.parametrize(
    ("content", "message"), [("no database" * 200, "not a database"), ("", "no sidelight tables")]
)
def test_a_file_that_is_no_store_is_named(tmp_path, content, message):
    path = tmp_path / "notes.db"
    path.write_text(content)
    with pytest.raises(StoreError, match=message):
        Store(f"sqlite:///{path}")


def test_questions_change_nothing(url, tmp_path):
    before = (tmp_path / "events.db").read_bytes()
    with Store(url) as opened:
        list(opened.events())
        opened.counts()
        opened.artifacts()
        with pytest.raises(StoreError, match=r"readonly|query_only"):
            opened._read(text("DELETE FROM events"))
    assert (tmp_path / "events.db").read_bytes() == before


def test_threads_may_ask_at_once(url):
    found = []
    with Store(url) as opened:
        together(*[lambda: found.append(len(list(opened.events())))] * 6)
    assert found == [5] * 6


# -- following -------------------------------------------------------------------------------


def test_following_begins_with_the_last_events(url):
    with Store(url) as opened:
        following = opened.follow(last=2, pause=0.01)
        assert [next(following).artifact_id for _ in range(2)] == ["a3", "a4"]


def test_events_that_are_stored_after_the_question_follow(url):
    with Store(url) as opened, closing(StoreSink(url)) as sink:
        following = opened.follow(pause=0.01)
        deliver(sink, [record("late", NOON - 5 * SECOND), record("later", NOON - 4 * SECOND)])
        deliver(sink, [record("made", NOON)])
        assert [next(following).type for _ in range(3)] == ["late", "later", "made"]


def test_only_selected_events_follow(url):
    with Store(url) as opened, closing(StoreSink(url)) as sink:
        following = opened.follow(type=["sent", "lost"], organization_id="", last=3, pause=0.01)
        deliver(sink, [record("made"), record("sent", organization="o1", artifact="x")])
        deliver(sink, [record("lost", artifact="y")])
        assert next(following).artifact_id == "y"


def test_each_event_follows_once_while_several_relays_write(url):
    total, writers, followed = 400, 3, []

    def write(base):
        with closing(StoreSink(url)) as sink:
            for n in range(0, total, 8):
                deliver(sink, [record("made", artifact=base + n + i) for i in range(8)])

    with Store(url) as opened:
        following = opened.follow(pause=0.005)

        def follow():
            followed.extend(next(following) for _ in range(total * writers))

        together(follow, *(lambda i=i: write(i * total) for i in range(writers)))
    assert sorted(int(event.artifact_id) for event in followed) == list(range(total * writers))


def test_a_clock_that_is_set_back_hides_nothing_from_a_follower(url, monkeypatch):
    with Store(url) as opened, closing(StoreSink(url)) as sink:
        following = opened.follow(pause=0.01)
        for hours in (0, 1, -1, 0):
            wrong = time.time_ns() + hours * 3600 * SECOND
            clock = SimpleNamespace(time_ns=lambda at=wrong: at, monotonic=time.monotonic)
            monkeypatch.setattr("sidelight.store.sink.time", clock)
            for name in "ab":
                deliver(sink, [record("made", artifact=f"{hours} {name}")])
            assert {next(following).artifact_id for _ in "ab"} == {f"{hours} a", f"{hours} b"}
        recorded = [event.recorded_ns for event in opened.events() if " " in event.artifact_id]
    assert len(set(recorded)) == len(recorded) == 8


def test_a_transaction_that_ends_late_is_not_missed():
    begun, arrivals = [], Arrivals()

    def new(*seconds):
        begun[:] = [SimpleNamespace(recorded_at=second * SECOND) for second in seconds]
        return [at // SECOND for at in arrivals.new(lambda _: begun)]

    assert new(30) == [30]
    assert new(30, 50) == [50]
    assert not arrivals.includes(40 * SECOND)
    assert new(30, 40, 50) == [40]
    assert new(30, 40, 50) == []
    assert arrivals.includes(40 * SECOND)


@pytest.mark.parametrize(
    "text",
    [
        "postgres//u:secretpw@host/db",
        "http://u:secretpw@127.0.0.1:9/v1/traces",
        "HTTPConnectionPool(host='u:secretpw@127.0.0.1', port=9)",
    ],
)
def test_no_password_is_shown(text):
    assert "secretpw" not in without_password(text)
    assert "127.0.0.1" in text or without_password(text).endswith("@host/db")
