"""A year of simulated events: every answer is the truth, also after an erasure and a pruning."""

import time
from collections import Counter
from contextlib import closing
from datetime import timedelta

import pytest
from tests.support import truth
from tests.support.simulated import MINUTE, Life, Told, records_of, simulate
from tests.support.stored import BACKENDS, DAY, SECOND, batches_of, exact, record, store

from sidelight import Store
from sidelight.record import Expectation
from sidelight.store.retention import Pruner
from sidelight.store.sink import StoreSink
from sidelight.store.times import from_ns

YEAR = 365 * DAY
NOW = time.time_ns()
BEGIN = NOW // DAY * DAY - YEAR - 10 * SECOND
"""Ten seconds before midnight; with 29 hours between two artifacts, so does each 24th begin."""
ENDED = ("completed", "failed")
EXPECTED = [
    Expectation(after="received", one_of=ENDED, within=timedelta(hours=1)),
    Expectation(after="transcribed", one_of=("completed",), within=timedelta(minutes=7)),
]
RANGES = [
    (None, None),
    (from_ns(NOW - 300 * DAY), None),
    (None, from_ns(NOW - 200 * DAY)),
    (from_ns(NOW - 250 * DAY), from_ns(NOW - 100 * DAY)),  # artifacts began before it, and after
    (from_ns(NOW + DAY), None),
]
FILTERS = [
    ({}, lambda life, event: True),
    ({"where": "kind=mail"}, lambda life, event: event.attributes.get("kind") == "mail"),
    ({"where": "words>=500"}, lambda life, event: event.attributes.get("words", 0) >= 500),
    ({"organization_id": "north"}, lambda life, event: life.organization == "north"),
    ({"organization_id": ""}, lambda life, event: life.organization is None),
    (
        {"point": ["shop.calls:receive_call", "shop.work:failed"]},
        lambda life, event: event.point in {"shop.calls:receive_call", "shop.work:failed"},
    ),
    ({"service": "shop-p2"}, lambda life, event: process_of(life) == "p2"),
    ({"host": ["here-p1", "here-p3"]}, lambda life, event: process_of(life) in {"p1", "p3"}),
]
LATENCIES = [
    (["received"], ["completed"]),
    (["received"], ENDED),
    (["transcription_started"], ["transcribed", "failed"]),
    (["transcribed", "failed"], ["completed", "received"]),
    (["received"], ["received"]),
]
GROUPS = [(), ("organization",), ("day",), ("point",), ("organization", "day", "point")]
FUNNELS = [
    [["received"], ["transcribed"], ENDED],
    [["received"], ["transcription_started"], ["transcribed"], ["completed"]],
    [["transcription_started"], ["received"], ["completed"]],  # a second run
    [["failed"], ["received"], ["transcribed", "completed"], ["completed"]],
    [["heard"], ["received"]],
]


@pytest.fixture(params=sorted(BACKENDS))
def url(request, tmp_path):
    return BACKENDS[request.param](tmp_path)


def process_of(life: Life) -> str:
    """The process that emitted the events of an artifact."""
    return f"p{int(life.artifact[1:]) % 3 + 1}"


def header(process: str) -> dict[str, object]:
    about = {"service.name": f"shop-{process}", "host.name": f"here-{process}"}
    return {"instance": process, "pid": 7, "resource": about}


def live_through(url: str, lives: list[Life]) -> None:
    """Store the events: p1 has exited, p2 has died, and p3 lives, far behind."""
    for process in ("p1", "p2", "p3"):
        mine = [life for life in lives if process_of(life) == process]
        store(url, *batches_of(records_of(mine), 500), writer=header(process))
    with closing(StoreSink(url)) as sink:
        sink.write([sign(NOW - YEAR), sign(NOW, ended=True)], header("p1"))
        sink.write([sign(NOW - YEAR)], header("p2"))
        sink.note_end(header("p2"))
        sink.write([sign(NOW - 100 * DAY)], header("p3"))


def sign(at: int, *, ended: bool = False):
    """A sign of life of a process."""
    about = {"point": "sidelight:ledger", "outcome": "ledger", "artifact": None}
    return record(None, at, attributes={"began": NOW - YEAR, "ended": ended}, **about)


def catch_up(url: str) -> None:
    """Deliver a sign of life of p3."""
    with closing(StoreSink(url)) as sink:
        sink.write([sign(time.time_ns())], header("p3"))


def outcome_of(life: Life, event: Told) -> str:
    """The outcome of a stored event: calls of ended processes that have no end are abandoned."""
    is_abandoned = life.fate == "abandoned" and process_of(life) != "p3"
    return "abandoned" if is_abandoned and event.outcome == "started" else event.outcome


def is_abandoned(life: Life) -> bool:
    return outcome_of(life, truth.told(life)[-1]) == "abandoned"


def agree(opened: Store, lives: list[Life]) -> None:
    """Ask for events and their numbers, and compare each answer with the truth."""
    assert opened.size() == sum(life.events for life in lives)
    for life in lives[::10]:
        assert [
            (event.event_id, event.type, event.outcome, event.occurred_ns)
            for event in opened.timeline(life.artifact)
        ] == [(e.event_id, e.type, outcome_of(life, e), e.at) for e in truth.told(life)]
    for outcome in ("started", "succeeded", "failed", "abandoned"):
        ids = {e.event_id for life in lives for e in life.told if outcome_of(life, e) == outcome}
        assert ids, outcome
        assert {event.event_id for event in opened.events(outcome=outcome)} == ids
        counted = truth.counts(lives, lambda life, e, of=outcome: outcome_of(life, e) == of)
        assert opened.counts(outcome=outcome) == counted
    for named, chosen in FILTERS:
        assert opened.counts(**named) == truth.counts(lives, chosen), named
    for since, until in RANGES:

        def lies_within(_: Life, event: Told, days=(since, until)) -> bool:
            first, last = days
            return (first is None or event.day >= first.date()) and (
                last is None or event.day <= last.date()
            )

        assert opened.counts(since=since, until=until) == truth.counts(lives, lies_within)


def agree_on_ways(opened: Store, lives: list[Life]) -> None:
    """Ask for latencies and funnels, and compare each answer with the truth."""
    every = FILTERS[0][1]
    for named, chosen in FILTERS:
        for start, end in LATENCIES:
            expected = truth.latencies(lives, start, end, (), (None, None), chosen)
            assert opened.latency(start, end, **named) == expected, (start, end, named)
        for steps in FUNNELS:
            expected = truth.funnel(lives, steps, (None, None), chosen, is_abandoned)
            assert opened.funnel(steps, **named).steps == expected, (steps, named)
    for within in RANGES:
        asked = dict(zip(("since", "until"), within, strict=True))
        for by in GROUPS:
            expected = truth.latencies(lives, ["received"], ENDED, by, within, every)
            assert opened.latency("received", ENDED, by=by, **asked) == expected, (by, within)
        for steps in FUNNELS:
            expected = truth.funnel(lives, steps, within, every, is_abandoned)
            assert opened.funnel(steps, **asked).steps == expected, (steps, within)


def agree_on_overdue(opened: Store, lives: list[Life], *, until: int | None = None) -> None:
    """Ask what is overdue.

    Args:
        opened: the store.
        lives: what it holds.
        until: when a delivery that is behind ends (ns); None where all is delivered.
    """
    for since in (None, timedelta(days=200)):
        assert judged(opened, since) == overdue(lives, since, until), since


def judged(opened: Store, since: timedelta | None) -> Counter:
    """What a store says to be overdue."""
    return Counter(
        (
            *(each.state, each.artifact_id, each.organization_id, each.after, each.one_of),
            *(each.since, each.due_at, each.last_type, each.last_at, each.last_outcome),
        )
        for each in opened.overdue(EXPECTED, since=since)
    )


def overdue(lives: list[Life], since: timedelta | None, until: int | None) -> Counter:
    """The truth: what is due later than a second before ``until`` is unknown."""
    expected: Counter = Counter()
    for expectation in EXPECTED:
        within = (None if since is None else from_ns(NOW) - since, None)
        for life, first in truth.begins(lives, [expectation.after], within, FILTERS[0][1]):
            if truth.following(life, first, expectation.one_of, [first]) is None:
                due, last = first.at + expectation.within_ns, truth.told(life)[-1]
                state = "unknown" if until is not None and due > until - SECOND else "overdue"
                about = (state, life.artifact, life.organization)
                expected[
                    *about,
                    *(expectation.after, expectation.one_of, from_ns(first.at), from_ns(due)),
                    *(last.type, from_ns(last.at), outcome_of(life, last)),
                ] += 1
    return expected


def test_every_answer_is_the_truth(url):
    lives = simulate(300, begin=BEGIN, spacing=29 * 60 * MINUTE)
    live_through(url, lives)
    with Store(url) as opened:
        agree(opened, lives)
        agree_on_ways(opened, lives)
        agree_on_overdue(opened, lives, until=NOW - 100 * DAY)
        catch_up(url)
        agree_on_overdue(opened, lives)
        erased = opened.erase(organization_id="south")
    south = [life for life in lives if life.organization == "south"]
    assert (erased.events, erased.artifacts) == (sum(e.events for e in south), len(south))
    lives = [life for life in lives if life.organization != "south"]
    live_through(url, south + lives[-100:])  # delivered again
    catch_up(url)
    with Store(url) as opened:
        agree(opened, lives)
        agree_on_overdue(opened, lives)
    exact(url)
    day = next(life.told[-1].day for life in lives[90:] if life.told[-1].day > life.day)
    with Pruner(url) as pruner:
        plan = pruner.plan(day.isoformat())
        for _ in pruner.run(plan):
            pass
    exact(url, plan.kept_since)
    for life in lives:
        life.told = [event for event in life.told if event.day >= plan.kept_since]
    kept = [life for life in lives if life.told]
    assert any(len(life.told) < life.events for life in kept)  # whose beginning was pruned
    with Store(url) as opened:
        assert opened.size() == sum(len(life.told) for life in kept)
        agree_on_ways(opened, kept)
        agree_on_overdue(opened, kept)
