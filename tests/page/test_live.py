"""The live tail: each event once, and bounded however many arrive."""

import asyncio

import pytest
from tests.support.commands import emit, url_of
from tests.support.postgres import new_database, own_server
from tests.support.stored import BACKENDS, NOON, record
from tests.support.stored import store as write

from sidelight import Store
from sidelight.page import live
from sidelight.page.live import Arrived, Tail, stream

ON_EACH = pytest.mark.parametrize("backend", sorted(BACKENDS))


def ids(events):
    """The artifacts of some events."""
    return [event.artifact_id for event in events]


def test_each_event_is_told_once_from_where_the_reader_was(tmp_path):
    path = tmp_path / "events.db"
    emit('receive("first"); sidelight.flush(60)', path)
    with Store(url_of(path)) as store:
        now, earlier = Tail(store, 0), Tail(store, 1)
        assert now.new() == Arrived([])
        assert ids(earlier.new().events) == ["first"]
        assert earlier.new() == Arrived([])
        emit('receive("second"); receive("third"); sidelight.flush(60)', path)
        for tail in (now, earlier):
            assert ids(tail.new().events) == ["second", "third"]
            assert tail.new() == Arrived([])


@ON_EACH
@pytest.mark.parametrize(("most", "is_exact"), [(20_000, True), (5_000, False)])
def test_of_a_burst_the_newest_are_shown_and_the_others_counted(
    backend, tmp_path, monkeypatch, most, is_exact
):
    """5,000 events in one transaction, as a relay stores those of a second."""
    monkeypatch.setattr(live, "_READ", most)
    write(url := BACKENDS[backend](tmp_path), [record(at=NOON - 1)])
    with Store(url) as store:
        tail = Tail(store, 0)
        burst = [record(at=NOON + n, artifact=f"{n}", bits=n) for n in range(5_000)]
        write(url, burst)
        arrived = tail.new()
        assert ids(arrived.events) == [f"{n}" for n in range(4_950, 5_000)]
        assert (arrived.left_out, arrived.is_exact) == (4_950, is_exact)
        write(url, [record(at=NOON + 5_000, artifact="last")])
        assert "last" in ids(tail.new().events)


def test_a_tail_that_is_opened_while_the_store_is_away_begins_when_it_is_back(tmp_path):
    server = own_server()
    url = new_database(server)
    emit('receive("first"); sidelight.flush(60)', url, SIDELIGHT_SPOOL=str(tmp_path / "spool"))

    async def said(store):
        texts = stream(store, 1, lambda event: event.artifact_id, lambda: False)
        server.kill()
        async for text in texts:
            if text.startswith("event: away"):
                server.start()
            elif "first" in text:
                return text
        return None

    with Store(url) as store:
        assert "first" in asyncio.run(asyncio.wait_for(said(store), 60))
