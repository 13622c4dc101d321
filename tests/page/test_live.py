"""The live tail: each event once, and bounded however many arrive."""

import asyncio

from tests.support.commands import emit, url_of
from tests.support.postgres import new_database, own_server

from sidelight import Store
from sidelight.page import live
from sidelight.page.live import Tail, stream


def ids(events):
    """The artifacts of some events."""
    return [event.artifact_id for event in events]


def test_each_event_is_told_once_from_where_the_reader_was(tmp_path):
    path = tmp_path / "events.db"
    emit('receive("first"); sidelight.flush(60)', path)
    with Store(url_of(path)) as store:
        now, earlier = Tail(store, 0), Tail(store, 1)
        assert now.new() == ([], False)
        assert ids(earlier.new()[0]) == ["first"]
        assert earlier.new() == ([], False)
        emit('receive("second"); receive("third"); sidelight.flush(60)', path)
        for tail in (now, earlier):
            assert ids(tail.new()[0]) == ["second", "third"]
            assert tail.new() == ([], False)


def test_what_does_not_fit_is_left_out_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "_READ", 100)
    monkeypatch.setattr(live, "_SHOWN", 10)
    path = tmp_path / "events.db"
    emit('receive("first"); sidelight.flush(60)', path)
    with Store(url_of(path)) as store:
        tail = Tail(store, 0)
        emit("[receive(f'{n}') for n in range(3000)]; sidelight.flush(60)", path)
        shown, is_cut = tail.new()
        assert (len(shown), is_cut) == (10, True)
        monkeypatch.setattr(live, "_READ", 10_000)
        monkeypatch.setattr(live, "_LATE", 0)
        emit('receive("last"); sidelight.flush(60)', path)
        assert "last" in ids(tail.new()[0])


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
