"""A year of simulated events: every answer equals the truth, also after an erasure."""

import time
from collections import Counter
from contextlib import closing
from datetime import timedelta

import pytest
from tests.support.simulated import Life, records_of, simulate
from tests.support.stored import BACKENDS, DAY, SECOND, batches_of, exact, record, store

from sidelight import Store
from sidelight.record import Expectation
from sidelight.store.retention import Pruner
from sidelight.store.sink import StoreSink

YEAR = 365 * DAY
EXPECT = Expectation(after="received", one_of=("completed", "failed"), within=timedelta(hours=1))


@pytest.fixture(params=sorted(BACKENDS))
def url(request, tmp_path):
    return BACKENDS[request.param](tmp_path)


def agree(url: str, lives: list[Life]) -> None:
    """Ask every question, and compare each answer with the truth."""
    ended = [life for life in lives if life.completed is not None or life.failed is not None]
    completed = [life for life in lives if life.completed is not None]
    transcribed = [life for life in lives if life.transcribed is not None]
    with Store(url) as opened:
        assert opened.size() == sum(life.events for life in lives)
        (latency,) = opened.latency("received", "completed")
        took = sorted(life.completed - life.received for life in completed)
        assert (latency.arrived, latency.max_ns) == (len(took), took[-1])
        assert latency.p50_ns == took[-(-len(took) // 2) - 1]
        assert latency.waiting == len(lives) - len(completed)
        funnel = opened.funnel(["received", "transcribed", ["completed", "failed"]])
        late = [life for life in transcribed if life.fate != "stuck_late"]
        assert [step.reached for step in funnel.steps] == [*map(len, (lives, transcribed, late))]
        counted = Counter()
        for each in opened.counts(type="received"):
            counted[each.organization_id] += each.count
        assert counted == Counter(
            life.organization
            for life in lives
            for static, _ in life.records
            if static.type == "received"
        )
        failed = sum(each.count for each in opened.counts(outcome="failed"))
        assert failed == sum(life.failures for life in lives)
        days = Counter(each.day for each in opened.latency("received", "completed", by=["day"]))
        assert days.keys() == {life.day for life in lives}
        found = opened.overdue([EXPECT], since=timedelta(days=400))
        assert {each.artifact_id: each.state for each in found} == {
            life.artifact: "overdue" for life in lives if life not in ended
        }
        timeline = next(life for life in lives if life.fate == "rerun")
        assert len(opened.timeline(timeline.artifact)) == timeline.events


def test_every_answer_is_the_truth(url):
    now = time.time_ns()
    lives = simulate(300, begin=now - YEAR, spacing=YEAR // 300 - 60 * SECOND)
    lives = [life for life in lives if now - life.received > DAY]
    store(url, *batches_of(records_of(lives), 500))
    with closing(StoreSink(url)) as sink:  # its process has ended
        told = {"began": now - YEAR, "ended": True}
        about = {"point": "sidelight:ledger", "outcome": "ledger", "artifact": None}
        sink.write([record(None, now, attributes=told, **about)], {"instance": "p1"})
    agree(url, lives)
    with Store(url) as opened:
        erased = opened.erase(organization_id="south")
    south = [life for life in lives if life.organization == "south"]
    assert (erased.events, erased.artifacts) == (sum(e.events for e in south), len(south))
    lives = [life for life in lives if life.organization != "south"]
    store(url, records_of(south), records_of(lives)[-500:])  # delivered again
    agree(url, lives)
    exact(url)
    with Pruner(url) as pruner:
        plan = pruner.plan("200d")
        for _ in pruner.run(plan):
            pass
    exact(url, plan.kept_since)
    with Store(url) as opened:
        assert opened.size() == len([*opened.events()])
