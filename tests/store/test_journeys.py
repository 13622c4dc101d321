"""Latency and funnel: the answers equal the truth of simulated events, on each database."""

from collections import Counter, defaultdict
from contextlib import closing
from datetime import date
from math import ceil

import pytest
from tests.support.simulated import MINUTE, POINTS, records_of, simulate
from tests.support.stored import BACKENDS, NOON, batches_of, record, store

from sidelight import Store
from sidelight.exceptions import QueryError
from sidelight.store import Latency, Step, journeys
from sidelight.store.times import from_ns

LIVES = simulate(200)


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def asked(request, tmp_path_factory):
    url = BACKENDS[request.param](tmp_path_factory.mktemp("filled"))
    store(url, *batches_of(records_of(LIVES), 500))
    with closing(Store(url)) as opened:
        yield opened


# -- latency -------------------------------------------------------------------------------------


def expected(lives, **key):
    """The latency from received to completed, from the truth."""
    took = sorted(life.completed - life.received for life in lives if life.completed is not None)
    waiting = [life.received for life in lives if life.completed is None]

    def at(share):
        return took[ceil(share * len(took)) - 1] if took else None

    return Latency(
        **key,
        arrived=len(took),
        waiting=len(waiting),
        waiting_since=from_ns(min(waiting)) if waiting else None,
        p50_ns=at(0.5),
        p90_ns=at(0.9),
        p99_ns=at(0.99),
        max_ns=took[-1] if took else None,
    )


def grouped(key):
    groups = defaultdict(list)
    for life in LIVES:
        groups[key(life)].append(life)
    return sorted(groups.items(), key=lambda item: str(item[0] or ""))


def test_latency_is_the_simulated_one(asked):
    found = asked.latency("received", "completed")
    assert found == [expected(LIVES)]
    assert (found.left_out, found.large) == (None, 0)
    assert found[0].waiting == sum(life.completed is None for life in LIVES) > 0


def test_latency_by_organization_day_and_point(asked):
    assert asked.latency("received", "completed", by=["organization"]) == [
        expected(lives, organization_id=key) for key, lives in grouped(lambda e: e.organization)
    ]
    assert asked.latency("received", "completed", by=["day"]) == [
        expected(lives, day=key) for key, lives in grouped(lambda e: e.day)
    ]
    assert asked.latency("received", "completed", by=["point"]) == [
        expected(lives, point=key) for key, lives in grouped(lambda e: POINTS[e.kind])
    ]
    both = asked.latency("received", "completed", by=["day", "organization"])
    assert both == [
        expected(lives, organization_id=owner or None, day=day)
        for (owner, day), lives in grouped(lambda e: (e.organization or "", e.day))
    ]


def test_latency_to_one_of_several_types(asked):
    (found,) = asked.latency("received", ["completed", "failed"])
    took = [
        min(t for t in (life.completed, life.failed) if t is not None) - life.received
        for life in LIVES
        if life.completed is not None or life.failed is not None
    ]
    assert (found.arrived, found.max_ns) == (len(took), max(took))
    assert found.waiting == len(LIVES) - len(took)


def test_filters_and_a_range_choose_the_artifacts_by_their_first_event(asked):
    second = date(2026, 7, 26)
    chosen = [life for life in LIVES if life.day == second and life.kind == "mail"]
    found = asked.latency("received", "completed", where="kind=mail", since=second, until=second)
    assert found == [expected(chosen)]
    days = asked.latency("received", "completed", by=["day"], where="kind=mail")
    assert [each for each in days if each.day == second] == [expected(chosen, day=second)]


def test_nothing_to_measure(asked):
    assert asked.latency("unheard", "of") == [expected([])]
    assert asked.latency("unheard", "of", by=["day"]) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("received", 5), "end: 5 is not an end"),
        (([], "completed"), r"start: \[\] is not a start"),
        (("received", "completed", ["hour"]), "by: 'hour' is unknown; give some of organization"),
    ],
    ids=repr,
)
def test_arguments_are_checked(asked, arguments, message):
    with pytest.raises(QueryError, match=message):
        asked.latency(*arguments[:2], by=[*arguments[2:], []][0])


# -- the funnel ----------------------------------------------------------------------------------


def test_the_funnel_is_the_simulated_one(asked):
    found = asked.funnel(["received", "transcribed", ["completed", "failed"]])
    first, second, third = found.steps
    reached = [life for life in LIVES if life.transcribed is not None]
    ended = [life for life in reached if life.fate != "stuck_late"]
    assert [step.reached for step in found.steps] == [len(LIVES), len(reached), len(ended)]
    assert first.types == ("received",)
    assert (first.p50_ns, first.p90_ns, first.max_ns) == (None, None, None)
    assert second.max_ns == max(life.transcribed - life.received for life in reached)
    assert third.by_type == Counter(
        "completed" if life.completed is not None else "failed" for life in ended
    )
    assert first.stayed == len(LIVES) - len(reached)
    assert first.last_types == Counter(life.last for life in LIVES if life.transcribed is None)
    assert second.last_types == {"transcribed": len(reached) - len(ended)}
    assert (third.stayed, third.last_types) == (0, {})
    assert (found.left_out, found.large) == (None, 0)


def steps(url, *types, **named):
    with Store(url) as opened:
        found = opened.funnel(types, **named)
    return [(step.reached, step.max_ns) for step in found.steps]


def lived(url, artifact, **events):
    """Store events of an artifact: ``name=minutes``; a second one of a type as ``name_2``."""
    records = [
        record(name.partition("_")[0], NOON + minutes * MINUTE, artifact=artifact)
        for name, minutes in events.items()
    ]
    store(url, records)


def test_a_step_needs_an_event_that_is_not_before_the_step_before(url):
    lived(url, "a1", b=0, a=1, c=2)
    assert steps(url, "a", "b", "c") == [(1, None), (0, None), (0, None)]
    assert steps(url, "a", "c") == [(1, None), (1, MINUTE)]
    lived(url, "a2", b=0, a=1, b_2=3, c=2, c_2=7)  # the first c is before the b that counts
    assert steps(url, "a", "b", "c") == [(2, None), (1, 2 * MINUTE), (1, 4 * MINUTE)]


def test_events_of_one_moment_are_in_any_order(url):
    records = [record(type, NOON, bits=bits) for bits, type in enumerate("cba")]
    store(url, records)
    assert steps(url, "a", "b", "c") == [(1, None), (1, 0), (1, 0)]


def test_an_event_reaches_one_step_only(url):
    lived(url, "a1", a=0, b=1)
    assert steps(url, "a", "a", "b") == [(1, None), (0, None), (0, None)]
    lived(url, "a2", a=0, a_2=3, b=5)
    assert steps(url, "a", "a", "b") == [(2, None), (1, 3 * MINUTE), (1, 2 * MINUTE)]
    store(url, [record("a", NOON, artifact="a3", bits=n) for n in range(2)])
    assert steps(url, "a", "a") == [(3, None), (2, 3 * MINUTE)]
    assert steps(url, ["a", "b"], ["a", "b"], "b") == [(3, None), (3, 3 * MINUTE), (1, 2 * MINUTE)]


def test_a_rerun_counts_once_from_its_first_beginning(url):
    lived(url, "a1", a=0, b=1, a_2=60, b_2=62)
    assert steps(url, "a", "b") == [(1, None), (1, MINUTE)]


def test_an_artifact_belongs_to_the_range_in_which_it_began(url):
    lived(url, "a1", a=0, a_2=60, b=61)
    before = {"until": from_ns(NOON + MINUTE)}
    assert steps(url, "a", "b", **before) == [(1, None), (1, 61 * MINUTE)]
    assert steps(url, "a", "b", since=from_ns(NOON + MINUTE)) == [(0, None), (0, None)]


def test_no_artifact_is_followed_twice_or_not_at_all(url, monkeypatch):
    monkeypatch.setattr(journeys, "_ARTIFACTS", 7)
    few = simulate(40, spacing=MINUTE)
    store(url, records_of(few))
    store(url, [record("received", NOON, artifact=None)])
    assert steps(url, "received") == [(40, None)]


def test_an_artifact_with_too_many_events_is_left_out_and_said_so(url, monkeypatch):
    monkeypatch.setattr(journeys, "LARGEST", 3)
    lived(url, "a1", a=0, b=1)
    lived(url, "a2", a=0, b=1, b_2=2, b_3=3)
    with Store(url) as opened:
        found = opened.funnel(["a", "b"])
        assert ([step.reached for step in found.steps], found.large) == ([1, 1], 1)
        assert opened.latency("a", "b").large == 1


def test_an_answer_comes_in_time_and_says_what_it_left_out(asked, monkeypatch):
    monkeypatch.setattr("sidelight.store.selection._FIRST_WINDOW", 20)
    found = asked.latency("received", "completed", time_limit=0)
    chosen = [life for life in LIVES if from_ns(life.received) >= found.left_out]
    assert 0 < len(chosen) < len(LIVES)
    assert found == [expected(chosen)]
    part = asked.funnel(["received", "completed"], time_limit=0)
    assert part.left_out == found.left_out
    assert part.steps[0] == Step(
        types=("received",),
        reached=len(chosen),
        by_type={"received": len(chosen)},
        p50_ns=None,
        p90_ns=None,
        max_ns=None,
        stayed=found[0].waiting,
        last_types=Counter(life.last for life in chosen if life.completed is None),
        abandoned=0,
    )


def test_a_funnel_needs_a_step(asked):
    for bad in ([], [""], ["received", 5]):
        with pytest.raises(QueryError, match="steps"):
            asked.funnel(bad)
