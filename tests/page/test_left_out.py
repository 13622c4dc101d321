"""A page that has no time for all that a store holds says what it left out."""

import contextlib
import html
import re
import sqlite3
import time
from datetime import timedelta

import pytest
from tests.support.stored import SECOND, ledger, record, sqlite, store

from sidelight import Store
from sidelight.page import answers
from sidelight.page.beside import Beside
from sidelight.page.site import Site
from sidelight.record import Expectation

EXPECTED = Expectation(after="received", one_of=("never",), within=timedelta(seconds=1))
BESIDE = Beside(health=list, lags=list, waiting=list, expectations=[EXPECTED])


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """600 artifacts with two events each, two processes that lost something, and time for all."""
    monkeypatch.setattr(answers, "_SECONDS", 1_000)
    now = time.time_ns()
    events = [
        record(type, now - (3000 - n) * SECOND, artifact=f"order-{n}", attributes={"size": n})
        for n in range(600)
        for type in ("received", "packed")
    ]
    store(url := sqlite(tmp_path), events)
    for process in ("p1", "p2"):
        store(url, [ledger(losses={"no room": 2})], writer=process)
    with Store(url) as opened:
        yield opened


def shown(store, name, found):
    """The words of a page."""
    text = Site(store, BESIDE)._page(name, found).body.decode()
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


FLOW = "received packed"
TIME = [
    (
        "flow",
        lambda store: answers.flow(store, BESIDE, FLOW),
        "Not all artifacts that began before .* are counted; sidelight funnel",
    ),
    (
        "flow",
        lambda store: answers.flow(store, BESIDE, FLOW),
        "Not all artifacts that began before .* are counted; sidelight latency",
    ),
    (
        "now",
        lambda store: answers.now(store, BESIDE),
        "Not all artifacts that began before .* were examined",
    ),
    (
        "artifacts",
        lambda store: answers.search(store, "size<3"),
        "Not all events before .* were searched",
    ),
]
MANY = [
    (
        "flow",
        lambda store: answers.flow(store, BESIDE, FLOW),
        "Events before .* not in this picture",
    ),
    ("artifacts", lambda store: answers.search(store, ""), "The latest 3 are shown"),
    ("artifacts", lambda store: answers.search(store, "size<4"), "The latest 3 are shown"),
]
LARGE = [
    (
        "flow",
        lambda store: answers.flow(store, BESIDE, FLOW),
        "600 artifacts .* left out.* 600 artifacts",
    ),
    ("now", lambda store: answers.now(store, BESIDE), "600 artifacts with more than .* left out"),
]


@pytest.mark.parametrize(("page", "ask", "words"), TIME)
def test_what_a_page_has_no_time_for(asked, monkeypatch, page, ask, words):
    monkeypatch.setattr(answers, "_FLOWING", 100)
    assert not re.search(words, shown(asked, page, ask(asked)))
    monkeypatch.setattr(answers, "_SECONDS", 0)
    assert re.search(words, shown(asked, page, ask(asked)))


def test_the_flow_of_a_small_store_takes_the_time_that_it_needs(asked, monkeypatch):
    monkeypatch.setattr(answers, "_SECONDS", 0)
    found = answers.flow(asked, BESIDE, FLOW)
    assert (found["funnel"].left_out, found["unmeasured"]) == (None, None)
    ((_, latency, _),) = found["latencies"]
    assert latency.arrived + latency.waiting == found["funnel"].steps[0].reached == 600


@pytest.mark.parametrize(("page", "ask", "words"), MANY)
def test_what_a_page_has_no_room_for(asked, monkeypatch, page, ask, words):
    for name in ("_FLOWING", "_SHOWN"):
        monkeypatch.setattr(answers, name, 2_000)
    assert not re.search(words, shown(asked, page, ask(asked)))
    for name in ("_FLOWING", "_SHOWN"):
        monkeypatch.setattr(answers, name, 3)
    assert re.search(words, shown(asked, page, ask(asked)))


@pytest.mark.parametrize(("page", "ask", "words"), LARGE)
def test_artifacts_with_very_many_events(asked, monkeypatch, page, ask, words):
    assert not re.search(words, shown(asked, page, ask(asked)))
    monkeypatch.setattr("sidelight.store.journeys.LARGEST", 1)
    assert re.search(words, shown(asked, page, ask(asked)))


def test_losses_of_all_processes_are_added_up(asked):
    found = shown(asked, "now", answers.now(asked, BESIDE))
    assert re.search("no room .* 4 ", found)
    assert "sidelight doctor counts all" not in found


def test_only_the_latest_losses_are_read(asked, monkeypatch):
    monkeypatch.setattr(answers, "_REPORTS", 1)
    found = shown(asked, "now", answers.now(asked, BESIDE))
    assert re.search("no room .* 2 .*latest 1 reports.* sidelight doctor counts all", found)


def test_calls_that_were_abandoned_stand_in_the_funnel(asked, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "events.db")) as connection, connection:
        connection.execute("UPDATE events SET outcome = 'abandoned' WHERE attributes LIKE '%:7}'")
    found = shown(asked, "flow", answers.flow(asked, BESIDE, "received sent"))
    assert re.search(r"600 stay here; their last event: [^;]*; ⊘ 1 abandoned", found)


def test_an_artifact_of_several_organizations_shows_none_of_them(tmp_path):
    url = sqlite(tmp_path)
    store(url, [record(artifact=1, organization=owner) for owner in ("acme", "globex")])
    with Store(url) as opened:
        assert re.search("1 several 2", shown(opened, "artifacts", answers.search(opened, "")))
