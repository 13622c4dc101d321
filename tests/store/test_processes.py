"""What a store knows of processes: signs of life, their ends, abandoned calls; judging by it."""

import time
from contextlib import closing
from datetime import timedelta

import pytest
from tests.support.simulated import MINUTE, records_of, simulate, with_fate
from tests.support.stored import DAY, NOON, SECOND, batches_of, exact, record, store

from sidelight import Store
from sidelight.record import CALL, SAMPLED, SPAN, Expectation
from sidelight.store import overdue
from sidelight.store.sink import StoreSink

TRACE = bytes(range(16))
EXPECT = Expectation(after="received", one_of=("completed", "failed"), within=timedelta(hours=1))


def sign(at, *, began=NOON, ended=False):
    """A sign of life of a process."""
    told = {"began": began, "ended": ended}
    return record(
        None, at, point="sidelight:ledger", outcome="ledger", artifact=None, attributes=told
    )


def header(instance="p1", *, service="shop", host="here", pid=7):
    return {
        "instance": instance,
        "pid": pid,
        "resource": {"service.name": service, "host.name": host},
    }


def deliver(url, *records, writer=None):
    with closing(StoreSink(url)) as sink:
        sink.write(records, writer or header())


def start(type="started", at=NOON, *, span=1, told=True, **named):
    flags = SAMPLED | (CALL if told else 0)
    return record(type, at, outcome="started", trace=TRACE, span=span, flags=flags, **named)


def end(type="done", at=NOON + SECOND, *, span=1, outcome="succeeded", **named):
    flags = SAMPLED | CALL | SPAN
    return record(
        type, at, outcome=outcome, trace=TRACE, span=span, flags=flags, duration=5, **named
    )


def note_end(url, writer=None):
    with closing(StoreSink(url)) as sink:
        sink.note_end(writer or header())


def outcomes(url):
    with Store(url) as opened:
        return [event.outcome for event in opened.events()]


# -- processes -----------------------------------------------------------------------------------


def test_signs_of_life_tell_how_far_the_delivery_of_a_process_is(url):
    before = time.time_ns()
    deliver(url, sign(NOON + 2), sign(NOON + 9), sign(NOON + 5), record())
    with Store(url) as opened:
        (process,) = opened.processes()
    assert (process.process, process.service, process.host, process.pid) == (
        "p1",
        "shop",
        "here",
        7,
    )
    assert (process.started_ns, process.delivered_until_ns) == (NOON, NOON + 9)
    assert before <= process.last_seen_ns <= time.time_ns()
    assert (process.ended, str(process)) == ("", "shop 7 on here")
    deliver(url, sign(NOON + 4))  # an old one, once more
    deliver(url, sign(NOON + 20, ended=True))
    with Store(url) as opened:
        (process,) = opened.processes()
    assert (process.delivered_until_ns, process.ended) == (NOON + 20, "exited")
    note_end(url)
    deliver(url, sign(NOON + 1), writer=header("p2"))
    note_end(url, header("p2"))
    note_end(url, header("p3", service="unknown_service", host="there"))
    deliver(url, sign(NOON + 1), writer=header("p2"))  # delivered again
    with Store(url) as opened:
        ended = {each.process: (each.ended, str(each)) for each in opened.processes()}
        assert opened.processes(limit=2) == opened.processes()[:2]
    assert ended == {
        "p1": ("exited", "shop 7 on here"),
        "p2": ("died", "shop 7 on here"),
        "p3": ("died", "process 7 on there"),
    }


def test_events_are_filtered_by_service_and_host(url):
    deliver(url, record("a"), sign(NOON), writer=header("p1", service="shop", host="one"))
    deliver(url, record("b"), sign(NOON), writer=header("p2", service="desk", host="two"))
    deliver(url, record("c"), sign(NOON), writer=header("p3", service="desk", host="one"))
    deliver(url, record("d"), writer=header("p4"))  # never gave a sign of life
    with Store(url) as opened:

        def types(**filters):
            return {event.type for event in opened.events(**filters)}

        assert types(service="desk") == {"b", "c"}
        assert types(service=["desk", "shop"], host="one") == {"a", "c"}
        assert types(host="three") == set()
        assert sum(each.count for each in opened.counts(service="desk")) == 2
    exact(url)


# -- abandoned calls -----------------------------------------------------------------------------


def test_a_call_whose_process_died_is_abandoned(url):
    deliver(url, start(span=1), end(span=1, at=NOON + 5))
    deliver(url, start(span=2, at=NOON + 10))
    deliver(url, end(span=2, at=NOON + 11))
    deliver(url, start(span=3, at=NOON + 20))
    deliver(url, start(span=4, at=NOON + 30, told=False))
    deliver(url, start(span=5, at=NOON + 40), writer=header("p2"))
    before = ["started", "succeeded", "started", "succeeded", "started", "started", "started"]
    assert outcomes(url) == before
    note_end(url)
    note_end(url)
    assert outcomes(url) == [*before[:4], "abandoned", "started", "started"]
    deliver(url, sign(NOON + 50, ended=True), writer=header("p2"))
    assert outcomes(url) == [*before[:4], "abandoned", "started", "abandoned"]
    with Store(url) as opened:
        assert len(list(opened.events(outcome="abandoned"))) == 2
        assert sum(each.count for each in opened.counts(outcome=["failed", "abandoned"])) == 2
    exact(url)


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "closed"])
def test_a_call_may_end_without_an_event(url, outcome):
    deliver(url, start())
    deliver(url, end(None, outcome=outcome))
    note_end(url)
    assert outcomes(url) == ["started"]


def test_a_start_that_is_delivered_again_opens_no_call(url):
    begun = start()
    deliver(url, begun)
    deliver(url, end(None))
    deliver(url, begun)
    note_end(url)
    assert outcomes(url) == ["started"]


def test_a_funnel_tells_who_stayed_in_an_abandoned_call(url):
    deliver(url, record("received", NOON), start("transcribing", NOON + 1))
    deliver(
        url,
        record("received", NOON, artifact="a2"),
        start("transcribing", NOON + 1, artifact="a2", span=2),
    )
    deliver(url, end(None, span=2))
    note_end(url)
    with Store(url) as opened:
        first, _ = opened.funnel(["received", "transcribed"]).steps
    assert (first.stayed, first.last_types, first.abandoned) == (2, {"transcribing": 2}, 1)


# -- overdue -------------------------------------------------------------------------------------


def ago(ns):
    return time.time_ns() - ns


def judged(url, expectation=EXPECT, **named):
    with Store(url) as opened:
        found = opened.overdue([expectation], **named)
    return {each.artifact_id: each.state for each in found}, found


def test_overdue_is_the_simulated_truth(url):
    lives = simulate(100, begin=ago(DAY), spacing=MINUTE)
    store(url, *batches_of(records_of(lives), 500))
    deliver(url, sign(time.time_ns()), sign(time.time_ns(), ended=True))
    now = time.time_ns()
    expected = {
        life.artifact: "overdue"
        for life in lives
        if life.completed is None and life.failed is None and life.received + 60 * MINUTE < now
    }
    states, found = judged(url)
    assert states == expected
    assert len(expected) == sum(1 for _ in with_fate(lives, "stuck", "stuck_late", "abandoned"))
    assert (found.unknown, found.left_out, found.large) == ([], None, 0)
    first, late = found[0], next(with_fate(lives, "stuck", "abandoned"))
    assert (first.artifact_id, first.organization_id) == (late.artifact, late.organization)
    assert (first.after, first.one_of, first.last_type) == ("received", EXPECT.one_of, late.last)
    assert first.due_at - first.since == timedelta(hours=1)
    assert abs(first.late_ns - (now - late.received - 60 * MINUTE)) < 60 * SECOND
    assert judged(url, since=timedelta(minutes=1))[0] == {}


@pytest.mark.parametrize(
    ("delivered", "seen", "state", "reason"),
    [
        (0, 0, "overdue", ""),
        (20 * MINUTE, 0, "overdue", ""),
        (
            40 * MINUTE,
            0,
            "unknown",
            "shop 7 on here (instance p1) delivers what it wrote 40 min ago",
        ),
        (
            40 * MINUTE,
            5 * MINUTE,
            "unknown",
            "shop 7 on here (instance p1) has been silent for 5 min",
        ),
    ],
)
def test_nothing_is_judged_beyond_what_was_delivered(
    url, delivered, seen, state, reason, monkeypatch
):
    """The artifact was due half an hour ago."""
    now = time.time_ns()
    clock = time.time_ns
    monkeypatch.setattr("sidelight.store.sink.time.time_ns", lambda: clock() - seen)
    deliver(url, record("received", now - 90 * MINUTE), sign(now - delivered))
    monkeypatch.undo()
    states, found = judged(url)
    assert states == {"a1": state}
    assert found.unknown == ([reason] if reason else [])
    assert found[0].reason == reason
    assert found[0].process == ("p1" if reason else "")
    if state == "unknown":
        assert judged(url, without=["p1"])[0] == {"a1": "overdue"}
        deliver(url, sign(now))
        assert judged(url)[0] == {"a1": "overdue"}


def test_what_is_just_due_waits_for_the_next_sign_of_life(url):
    now = time.time_ns()
    deliver(url, record("received", now - 60 * MINUTE - SECOND), sign(now - 2 * SECOND))
    states, found = judged(url)
    assert (states, found.not_judged) == ({}, 1)
    assert found.awaited == ["shop 7 on here gives its next sign of life"]
    deliver(url, sign(now + 5 * SECOND))
    assert judged(url)[0] == {"a1": "overdue"}


def test_without_a_process_that_told_anything_all_is_unknown(url):
    deliver(url, record("received", ago(2 * 60 * MINUTE)))
    states, found = judged(url)
    assert states == {"a1": "unknown"}
    assert found.unknown == ["no process has told the store that it lives; is a relay running?"]
    waiting = [overdue.Mark(ago(DAY), "events wait in the spool here")]
    deliver(url, sign(time.time_ns()))
    assert judged(url, waiting=waiting)[1].unknown == ["events wait in the spool here"]
    deliver(url, record("completed", ago(MINUTE)))
    assert judged(url)[0] == {}
