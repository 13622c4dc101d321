"""What every database holds: delivered at least once, stored exactly once, counted exactly."""

import math
import random
from collections import Counter
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text
from tests.support.stored import (
    DAY,
    NOON,
    SECOND,
    TRACE,
    batches_of,
    deliver,
    exact,
    ledger,
    record,
    store,
    together,
)

from sidelight import Store
from sidelight.exceptions import (
    QueryError,
    SinkRefusedError,
    SinkUnavailableError,
    StoreMissingError,
    StoreVersionError,
)
from sidelight.record.costs import Costs, CostSummary
from sidelight.record.format import CUT, event_id
from sidelight.store.engine import connect
from sidelight.store.event import Event
from sidelight.store.sink import StoreSink
from sidelight.store.times import from_ns

# -- rows ------------------------------------------------------------------------------------


def test_an_event_comes_back_as_it_went_in(url, ask):
    at = NOON + 123_456_789
    fields = {"artifact": "a1", "organization": "o1", "duration": 1_500_000_001, "mode": "awaited"}
    store(url, [record("made", at, **fields, trace=TRACE, span=0xABC, attributes={"n": 3}, bits=7)])
    (event,) = ask(Store.events)
    assert event == Event(
        event_id=event_id(at, 7),
        type="made",
        artifact_id="a1",
        organization_id="o1",
        occurred_ns=at,
        recorded_ns=event.recorded_ns,
        point="shop:make",
        mode="awaited",
        outcome="succeeded",
        duration_ns=1_500_000_001,
        trace_id="000102030405060708090a0b0c0d0e0f",
        span_id="0000000000000abc",
        attributes={"n": 3},
    )
    assert event.occurred_at == datetime(2026, 7, 25, 12, 0, 0, 123456, tzinfo=UTC)
    assert event.duration == timedelta(seconds=1, milliseconds=500)
    assert event.started_ns == at - 1_500_000_001
    assert timedelta(0) <= datetime.now(UTC) - event.recorded_at < timedelta(minutes=1)
    assert Event.model_validate_json(event.model_dump_json()) == event


def test_a_field_without_a_value_is_none(url, ask):
    store(url, [record(artifact=None, outcome="emitted")])
    (event,) = ask(Store.events)
    assert event.artifact_id is event.organization_id is event.duration_ns is event.duration is None
    assert event.trace_id is event.span_id is None
    assert event.attributes == {}
    assert ask(Store.artifacts) == []


def test_a_span_alone_has_no_row(url, ask):
    store(url, [record(None, trace=TRACE, span=1), record("made")])
    assert [event.type for event in ask(Store.events)] == ["made"]


ERROR = {"error.type": "shop.Broke", "error.message": "no luck"}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"outcome": "failed", "error": tuple(ERROR.values()), "attributes": {"n": 1}}, ERROR),
        ({"flags": CUT, "attributes": {"n": 1}}, {"sidelight.truncated": True}),
    ],
    ids=["failed", "cut"],
)
def test_attributes_say_what_became_of_the_event(url, ask, given, stored):
    store(url, [record(**given)])
    (event,) = ask(Store.events)
    assert event.attributes == {"n": 1, **stored}


VALUES = [
    ("Grüße, 世界 🎧", "Grüße, 世界 🎧"),
    ("NUL \0 and \x1b[31m", "NUL ␀ and \x1b[31m"),
    ("\ud800 alone", "\\ud800 alone"),
    (math.nan, "nan"),
    (-math.inf, "-inf"),
    (1.5e300, 1.5e300),
    (2**63 - 1, 2**63 - 1),
    (2**64 - 1, 2**64 - 1),
    (-(2**63), -(2**63)),
    (2**64, hex(2**64)),
    (10**400, f"<int of {(10**400).bit_length()} bits>"),
    ({"nested": [1, None, {"deep": True}]}, {"nested": [1, None, {"deep": True}]}),
    (None, None),
    ("' OR 1=1; --", "' OR 1=1; --"),
]
IDS = [(17, "17"), (1.5, "1.5"), ("", ""), ("ünï", "ünï"), ("a'; --", "a'; --"), ([1], "[1]")]


def test_attributes_and_ids_keep_their_values(url, ask):
    odd = 'odd "name" ünder'
    store(
        url,
        [record(at=NOON + n, attributes={"value": v, odd: 1}) for n, (v, _) in enumerate(VALUES)],
        [record("id", artifact=given, organization="o1") for given, _ in IDS],
    )
    assert [event.attributes for event in ask(Store.events, type="made")] == [
        {"value": stored, odd: 1} for _, stored in VALUES
    ]
    for _, stored in IDS:
        assert [e.artifact_id for e in ask(Store.events, artifact_id=stored)] == [stored]
    assert {each.artifact_id for each in ask(Store.artifacts)} == {"a1", *(text for _, text in IDS)}


# -- exactly once ----------------------------------------------------------------------------


def many(count, seed):
    """Records of several days, types and artifacts, some with the organization of theirs."""
    chance = random.Random(seed)
    return [
        record(
            chance.choice(["made", "sent", "lost"]),
            NOON + chance.randrange(3 * DAY),
            artifact=(artifact := chance.choice([None, *range(12)])),
            organization=None if artifact is None or chance.random() < 0.6 else f"o{artifact % 3}",
            duration=chance.choice([None, 5, 10**9]),
            bits=chance.getrandbits(64),
        )
        for _ in range(count)
    ]


def assert_holds(url, records):
    """The store holds these records once each, and an artifact's events have its organization."""
    events = exact(url)
    assert {event.event_id for event in events} == {
        event_id(moment.time + (moment.duration or 0), moment.random) for _, moment in records
    }
    with Store(url) as opened:
        owners = {each.artifact_id: each.organization_id for each in opened.artifacts()}
    assert all(e.artifact_id is None or e.organization_id == owners[e.artifact_id] for e in events)


HOSTILE = [
    "\\",
    "\\N",
    "\\.",
    "\\\\n",
    "a\tb\nc\rd",
    "\b\f\v\x1f\x7f",
    "'\";--",
    "{},NULL",
    "\u2028é☃𝄞",
]


@pytest.mark.parametrize("again", [False, True], ids=["all new", "some stored before"])
def test_texts_that_mean_something_to_a_database_are_kept(url, again):
    """Rows go by COPY, or as arrays that are written by hand where some were stored before."""
    records = [
        record(
            text, NOON + n, artifact=text, organization=text, point=text, attributes={text: text}
        )
        for n, text in enumerate(HOSTILE)
    ]
    store(url, *([records[:1]] if again else []), records)
    assert [
        (e.type, e.artifact_id, e.organization_id, e.point, e.attributes) for e in exact(url)
    ] == [(text, text, text, text, {text: text}) for text in HOSTILE]


def test_a_record_that_comes_twice_is_stored_and_counted_once(url):
    records, more = many(60, seed=1), many(20, seed=2)
    store(url, [*records, *records[:10]], records, records[:7], [*records[5:], *more])
    assert_holds(url, [*records, *more])


@pytest.mark.parametrize("seed", range(6))
def test_any_order_and_any_repetition_have_the_same_result(url, seed):
    chance = random.Random(seed)
    records = many(80, seed=seed)
    deliveries = records + chance.sample(records, 40)
    chance.shuffle(deliveries)
    store(url, *batches_of(deliveries, chance.choice([1, 7, 30, 200])))
    assert_holds(url, records)


def test_a_big_batch(url):
    records = many(5_000, seed=4)
    store(url, records, records[2_000:])
    assert_holds(url, records)


def test_several_relays_write_the_same_records_at_once(url):
    records = many(300, seed=5)

    def relay(seed):
        chance = random.Random(seed)
        batches = batches_of(records, 40)
        chance.shuffle(batches)
        with closing(StoreSink(url)) as sink:
            for batch in batches:
                chance.shuffle(batch)
                deliver(sink, batch, writer=f"p{seed}")

    together(*(lambda seed=seed: relay(seed) for seed in range(4)))
    assert_holds(url, records)


def test_a_batch_with_a_refused_record_is_not_stored_at_all(url, ask):
    store(url, [record(bits=1)])
    with closing(StoreSink(url)) as sink:
        with pytest.raises((SinkRefusedError, OverflowError)):  # the relay handles both alike
            sink.write([record(bits=2), record(duration=2**63)], {})
        deliver(sink, [record(bits=3)])
    assert len(ask(Store.events)) == 2


# -- the organization of an artifact ---------------------------------------------------------

NAMED, NAMELESS = {"organization": "o1"}, {"organization": None}


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "one after the other"])
@pytest.mark.parametrize(
    "order", [[NAMED, NAMELESS], [NAMELESS, NAMED], [NAMELESS, NAMED, NAMELESS]], ids=len
)
def test_an_event_takes_its_artifacts_organization(url, order, together):
    records = [record("made", NOON + i, bits=i, **each) for i, each in enumerate(order)]
    store(url, *([records] if together else [[each] for each in records]))
    assert [event.organization_id for event in exact(url)] == ["o1"] * len(order)


def test_counters_are_corrected_when_the_organization_becomes_known(url, ask):
    store(
        url, [record("made", NOON), record("sent", NOON + DAY), record("made", NOON, artifact="b")]
    )
    assert {count.organization_id for count in ask(Store.counts)} == {None}
    store(url, [record("sent", NOON, organization="o1")])
    assert [(c.organization_id, c.type, c.day.day, c.count) for c in ask(Store.counts)] == [
        (None, "made", 25, 1),
        ("o1", "made", 25, 1),
        ("o1", "sent", 25, 1),
        ("o1", "sent", 26, 1),
    ]


def test_an_event_may_belong_to_another_organization_than_its_artifact(url, ask):
    store(url, [record(organization="o1", bits=1)], [record(organization="o2", bits=2)])
    assert Counter(e.organization_id for e in ask(Store.events)) == {"o1": 1, "o2": 1}
    (artifact,) = ask(Store.artifacts)
    assert (artifact.organization_id, artifact.is_shared) == (None, True)


# -- order and pages -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({}, 2500),
        ({"type": "made"}, 2100),
        ({"organization_id": ""}, 2500),
        ({"type": ["made", "sent"]}, 2500),
    ],
    ids=repr,
)
def test_events_are_in_the_order_of_time_across_pages(url, ask, asked, count):
    """Also within one microsecond, and in both directions."""
    chance = random.Random(6)
    paged = [record("made", NOON + (n // 3) * 100, artifact=None) for n in range(2_100)]
    close = [record("sent", NOON + chance.randrange(2_000), artifact=n) for n in range(400)]
    store(url, paged, *batches_of(close, 50))
    found = ask(Store.events, **asked)
    places = [(event.occurred_ns, event.event_id) for event in found]
    assert places == sorted(set(places))
    assert len(found) == count
    assert ask(Store.events, newest_first=True, **asked) == found[::-1]
    assert ask(Store.events, limit=7, **asked) == found[:7]


# -- questions -------------------------------------------------------------------------------


@pytest.fixture
def filled(url):
    store(
        url,
        [
            record("made", NOON, artifact="a1", organization="o1", trace=TRACE, span=1),
            record("sent", NOON + SECOND, artifact="a1", trace=TRACE[::-1], span=2),
            record("made", NOON + 2 * SECOND, artifact="a2", organization="o2"),
            record("made", NOON + DAY, artifact="a3"),
            record("lost", NOON + 2 * DAY, artifact=None),
        ],
    )


EVENTS = [
    ({}, [0, 1, 2, 3, 4]),
    ({"artifact_id": "a1"}, [0, 1]),
    ({"artifact_id": "nobody"}, []),
    ({"organization_id": "o1"}, [0, 1]),
    ({"organization_id": ""}, [3, 4]),
    ({"type": "made"}, [0, 2, 3]),
    ({"type": ["sent", "lost", "sent"]}, [1, 4]),
    ({"trace_id": "000102030405060708090A0B0C0D0E0F"}, [0]),
    ({"trace_id": TRACE[::-1].hex(), "type": "made"}, []),
    ({"artifact_id": "a1", "type": "sent"}, [1]),
    ({"organization_id": "o1", "type": ["made", "sent"]}, [0, 1]),
    ({"organization_id": "", "type": ["made", "lost"]}, [3, 4]),
    ({"since": "2026-07-25T12:00:01Z"}, [1, 2, 3, 4]),
    ({"since": datetime(2026, 7, 25, 14, 0, 2, tzinfo=UTC)}, [3, 4]),
    ({"until": "2026-07-25T12:00:01Z"}, [0]),
    ({"until": date(2026, 7, 25)}, [0, 1, 2]),
    ({"since": date(2026, 7, 26), "until": date(2026, 7, 26)}, [3]),
    ({"type": "made", "since": "2026-07-25T12:00:01Z", "until": "2026-07-26"}, [2, 3]),
    ({"limit": 2}, [0, 1]),
    ({"limit": 2, "newest_first": True}, [4, 3]),
    ({"type": ["made", "sent"], "limit": 3, "newest_first": True}, [3, 2, 1]),
    ({"since": timedelta(days=1)}, []),
]
COUNTS = [
    ({}, 5),
    ({"organization_id": "o1"}, 2),
    ({"organization_id": ""}, 2),
    ({"type": "made"}, 3),
    ({"type": ["sent", "lost"]}, 2),
    ({"since": "2026-07-26"}, 2),
    ({"until": "2026-07-26"}, 4),
    ({"since": date(2026, 7, 26), "until": datetime(2026, 7, 26, 1, tzinfo=UTC)}, 1),
]
ARTIFACTS = [
    ({}, ["a3", "a2", "a1"]),
    ({"limit": 1}, ["a3"]),
    ({"organization_id": "o1"}, ["a1"]),
    ({"organization_id": ""}, ["a3"]),
    ({"since": "2026-07-26"}, ["a3"]),
    ({"until": date(2026, 7, 25)}, ["a2", "a1"]),
]


@pytest.mark.usefixtures("filled")
def test_questions(ask):
    everything = ask(Store.events)
    for asked, found in EVENTS:
        assert ask(Store.events, **asked) == [everything[index] for index in found], asked
    for asked, total in COUNTS:
        assert sum(count.count for count in ask(Store.counts, **asked)) == total, asked
    for asked, ids in ARTIFACTS:
        assert [each.artifact_id for each in ask(Store.artifacts, **asked)] == ids, asked
    assert [event.type for event in ask(Store.timeline, "a1")] == ["made", "sent"]
    assert ask(Store.timeline, "nobody") == []


# -- ledgers ---------------------------------------------------------------------------------


def snapshot(*costs):
    counted = Costs()
    for ns in costs:
        counted.add(ns)
    return counted.snapshot()


def test_costs_are_those_of_all_processes(url, ask):
    late = {"shop:make": snapshot(20_000_000), "shop:b": snapshot(5)}
    store(url, [ledger(costs={"shop:make": snapshot(1_000, 2_000)})], writer="p1")
    store(url, [ledger(costs=late)], writer="p2")
    assert ask(Store.costs) == [
        CostSummary.of("shop:b", [snapshot(5)]),
        CostSummary.of("shop:make", [snapshot(1_000, 2_000, 20_000_000)]),
    ]
    assert [cost.over_budget for cost in ask(Store.costs)] == [0, 1]
    assert [cost.count for cost in ask(Store.costs, latest=2)] in ([1, 1], [1, 2], [2, 1], [3])
    for question in (Store.costs, Store.losses):
        with pytest.raises(QueryError, match="latest: 0 is not a count"):
            ask(question, latest=0)


def test_the_latest_losses(url, ask):
    told = {"losses": {"no room": 1, "a field": 2}, "costs": {}, "problems": {}}
    about = {"point": "sidelight:ledger", "outcome": "ledger", "artifact": None}
    for n, process in enumerate(("p1", "p2", "p3")):
        store(url, [record(None, NOON + n * SECOND, attributes=told, **about)], writer=process)
    assert len(ask(Store.losses)) == 6
    for latest in (1, 4, 6, 7):
        found = ask(Store.losses, latest=latest)
        assert len(found) == min(latest, 6)
        assert found == [loss for loss in ask(Store.losses) if loss in found]
    assert {loss.process for loss in ask(Store.losses, latest=2)} == {"p3"}


def test_a_snapshot_that_was_taken_during_an_emission_has_a_histogram():
    """The budget was exceeded once more than the buckets tell."""
    summary = CostSummary.of("shop:make", [{**snapshot(5), "over": 2}])
    assert (summary.histogram[0], summary.histogram[-1]) == (1, 2)
    assert min(summary.histogram) == 0


def test_types_with_their_number_and_their_last_event(url, ask):
    day = 86_400 * SECOND
    store(url, [record(kind, NOON + n * day, bits=n) for n, kind in enumerate("abacab")])
    told = [(each.type, each.count, each.last_event_at) for each in ask(Store.types)]
    last = {"a": 4, "b": 5, "c": 3}
    moments = {kind: from_ns(NOON + n * day) for kind, n in last.items()}
    assert told == [("a", 3, moments["a"]), ("b", 2, moments["b"]), ("c", 1, moments["c"])]
    since = moments["a"].date()
    assert [each.count for each in ask(Store.types, since=since)] == [1, 1, 0]
    assert [each.type for each in ask(Store.types, limit=2)] == ["a", "b"]


def test_the_latest_ledger_of_a_process_counts(url, ask):
    early = ledger({"no room": 1}, {"shop:make": snapshot(1)})
    late = ledger({"no room": 3, "odd": 1}, {"shop:make": snapshot(1, 2, 3)})
    store(url, [early], [late], [early], [late])
    assert [(loss.reason, loss.count) for loss in ask(Store.losses)] == [("no room", 3), ("odd", 1)]
    assert [cost.count for cost in ask(Store.costs)] == [3]
    store(url, [ledger({"no room": 5})], writer="p2")
    losses = ask(Store.losses)
    assert {(loss.process, loss.count) for loss in losses[:2]} == {("p1", 3), ("p2", 5)}
    assert losses[0].problem == "no room!"


# -- the store itself ------------------------------------------------------------------------


def test_a_store_that_does_not_exist_is_named(no_store):
    with pytest.raises(StoreMissingError, match=r"there is no events store at .*SIDELIGHT_STORE"):
        Store(no_store)


def test_an_empty_store_has_answers(url, ask):
    store(url, [record(None)], [ledger()])
    connect(url, create=True).dispose()
    assert ask(Store.events) == ask(Store.counts) == ask(Store.artifacts) == []
    assert ask(Store.losses) == ask(Store.costs) == []
    assert ask(Store.size) == 0


def test_a_store_of_a_newer_version_is_left_alone(url):
    store(url, [record()])
    engine = connect(url, create=False)
    with engine.begin() as connection:
        connection.execute(text("UPDATE sidelight_schema SET version = 99"))
    engine.dispose()
    with pytest.raises(StoreVersionError, match=r"version 99.*upgrade"):
        Store(url)
    with closing(StoreSink(url)) as sink, pytest.raises(SinkUnavailableError, match="version 99"):
        sink.write([record()], {})


def test_a_reader_blocks_no_relay(url):
    store(url, [record(at=NOON + n) for n in range(1_500)])
    with Store(url) as opened, closing(StoreSink(url)) as sink:
        reading = opened.events()
        first = next(reading)
        sink.write([record(at=NOON + 10**6)], {})
        assert first.occurred_ns == NOON
        assert sum(1 for _ in reading) == 1_500
