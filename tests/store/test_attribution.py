"""The organization of an event that names none: its artifact's, and never a guess."""

import contextlib
import itertools
import random
from collections import defaultdict
from contextlib import closing

import pytest
from sqlalchemy import select
from tests.support.stored import NOON, batches_of, deliver, exact, record, store, together
from tests.support.telemetry import configured, eventually, stored

import sidelight
from sidelight import Store
from sidelight.store import ingest
from sidelight.store.schema import artifacts as of_artifacts
from sidelight.store.sink import StoreSink

ACME, GLOBEX, NONE = "acme", "globex", None


@pytest.mark.parametrize("in_one", [True, False], ids=["one batch", "one after the other"])
@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ([ACME, NONE], [ACME, ACME]),
        ([NONE, ACME, ACME, NONE], [ACME] * 4),
        ([ACME, GLOBEX, NONE], [ACME, GLOBEX, NONE]),
        ([GLOBEX, ACME, NONE, ACME, NONE], [GLOBEX, ACME, NONE, ACME, NONE]),
    ],
    ids=repr,
)
def test_only_the_one_organization_of_an_artifact_is_given(url, named, expected, in_one):
    records = [record(at=NOON + n, organization=each, bits=n) for n, each in enumerate(named)]
    store(url, *([records] if in_one else [[each] for each in records]), records)
    assert [event.organization_id for event in exact(url)] == expected


def test_relays_that_name_different_organizations_at_once(url):
    """What a relay reads of an artifact before it has locked it may be outdated."""
    artifacts = range(30)

    def relay(owner):
        chance = random.Random(owner)
        records = [
            record("made" if named else "bare", artifact=artifact, organization=named)
            for artifact in artifacts
            for named in (owner, None, None)
        ]
        chance.shuffle(records)
        with closing(StoreSink(url)) as sink:
            for batch in batches_of(records, 3):
                deliver(sink, batch)

    store(url, [record()])
    together(*(lambda owner=owner: relay(owner) for owner in ("o1", "o2", "o3")))
    given, first = defaultdict(set), {}
    for event in exact(url):
        if event.type == "bare":
            given[event.artifact_id].add(event.organization_id)
    with Store(url) as opened:
        first = {row.artifact_id: row.organization_id for row in opened._read(select(of_artifacts))}
    for artifact, owners in given.items():
        assert owners <= {None, first[artifact]}


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(ingest, "STEP", 50)


NAMELESS = [record("step", NOON + n // 3, artifact="big", bits=n) for n in range(1_000)]


@pytest.mark.usefixtures("small_steps")
def test_many_earlier_events_are_moved_in_steps(url):
    """Each step is a short transaction, after which every counter agrees with the rows."""
    store(url, *batches_of(NAMELESS, 400))
    with closing(StoreSink(url)) as sink:
        deliver(sink, [record("named", artifact="big", organization=ACME)])
        deliver(sink, [record("late", artifact="big")])  # in between
        left = [sum(event.organization_id is None for event in exact(url))]
        while sink.has_deferred_work:
            deliver(sink, [])
            left.append(sum(event.organization_id is None for event in exact(url)))
    assert all(before - after <= 50 for before, after in itertools.pairwise(left))
    assert left[0] >= 850
    assert left[-1] == 0
    with closing(StoreSink(url)) as sink:
        deliver(sink, [])
        assert not sink.has_deferred_work


@pytest.mark.usefixtures("small_steps")
def test_events_of_an_artifact_whose_organization_is_known_move_none(url):
    """Only a batch that names an organization can make it known."""
    store(url, [record("named", artifact="big", organization=ACME)])
    with closing(StoreSink(url)) as sink:
        for batch in batches_of(NAMELESS, 100):
            deliver(sink, batch)
            assert not sink.has_deferred_work
    assert {event.organization_id for event in exact(url)} == {ACME}


@pytest.mark.usefixtures("small_steps")
def test_another_relay_finishes_the_steps(url):
    store(url, *batches_of(NAMELESS, 400))
    store(url, [record("named", artifact="big", organization=ACME)])
    assert any(event.organization_id is None for event in exact(url))

    def relay():
        with closing(StoreSink(url)) as sink:
            deliver(sink, [])
            while sink.has_deferred_work:
                with contextlib.suppress(Exception):
                    deliver(sink, [])

    together(relay, relay)
    assert {event.organization_id for event in exact(url)} == {ACME}


@pytest.mark.usefixtures("small_steps")
def test_a_relay_moves_on_without_new_events(tmp_path):
    with configured(tmp_path):
        for n in range(500):
            sidelight.emit("step", artifact_id="big", n=n)
        assert sidelight.flush(30.0)
        sidelight.emit("named", artifact_id="big", organization_id=ACME)
        assert sidelight.flush(30.0)
        path = tmp_path / "events.db"
        assert eventually(lambda: all(row["organization_id"] for row in stored(path)))
    assert len(exact(f"sqlite:///{path}")) == 501


def test_an_artifact_of_several_organizations_has_none_of_them(url):
    named = [(1, ACME), (1, GLOBEX), (1, NONE), (2, ACME), (3, NONE)]
    store(url, *([record(artifact=id, organization=owner)] for id, owner in named))

    def found(owner=None):
        with Store(url) as opened:
            return {
                each.artifact_id: (each.organization_id, each.is_shared)
                for each in opened.artifacts(organization_id=owner)
            }

    assert found() == {"1": (NONE, True), "2": (ACME, False), "3": (NONE, False)}
    assert found(ACME).keys() == {"1", "2"}
    assert found("").keys() == {"3"}


def test_every_artifact_of_several_organizations_is_named(url):
    """Also the oldest of very many, and one with very many events."""
    shared = [record(artifact=0, organization=each, at=NOON) for each in (ACME, GLOBEX)]
    many = [record(artifact=1, organization=ACME, at=NOON + n, bits=n) for n in range(11_000)]
    many.append(record(artifact=1, organization=GLOBEX, at=NOON + 20_000))
    others = [record(artifact=n, organization=ACME, at=NOON + 10**9 + n) for n in range(2, 1500)]
    store(url, shared, many, others)
    with Store(url) as opened:
        assert opened.shared_artifacts() == ["1", "0"]
