"""What consumers take from a topic into a store: the rows of direct delivery, each once."""

import gc
import itertools
import json
import re
import signal
import subprocess
import time
from contextlib import closing

import psycopg
import pytest
from confluent_kafka import Message, Producer
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sqlalchemy import text
from tests.support import kafka
from tests.support.commands import sidelight
from tests.support.consuming import command, consume_once, consuming, environment
from tests.support.postgres import new_database, own_server
from tests.support.programs import wait_until
from tests.support.proxy import Proxy
from tests.support.stored import BACKENDS, NOON, TRACE, batches_of, ledger, record, sqlite
from tests.support.stored import store as store_directly

from sidelight import Store
from sidelight.cli.consume import _run_once
from sidelight.cli.doctor.stream import check_stream
from sidelight.exceptions import SinkUnavailableError
from sidelight.record import encode
from sidelight.record.format import CALL, SPAN
from sidelight.spool import Entry, Quarantine
from sidelight.store import StoreSink
from sidelight.store.engine import connect
from sidelight.stream import MessageWriter, StreamAddress, StreamConsumer, StreamSink, register

RECORDS = [
    record(
        type=f"type{n % 3}",
        at=NOON + n * 1_000_000,
        artifact=f"a{n % 7}" if n % 5 else None,
        organization="org" if n % 7 == 1 else None,
        duration=n if n % 2 else None,
        trace=TRACE if n % 3 else None,
        span=n,
        attributes={"n": n, "text": "ü" * (n % 9)},
        error=("ValueError", "no") if n % 11 == 0 else None,
        outcome="failed" if n % 11 == 0 else "succeeded",
        bits=n << 40,
    )
    for n in range(400)
]


@pytest.fixture
def topic():
    return kafka.broker().new_topic(partitions=3)


PROCESSES = [
    {
        "instance": f"{n:016x}",
        "pid": n,
        "resource": {"service.name": f"shop {n}", "host.name": f"host-{n}"},
    }
    for n in range(1, 4)
]


def sign(at, **content):
    content = {"began": NOON, **content}
    return record(None, at, point="sidelight:ledger", outcome="ledger", attributes=content)


def call(number, outcome, type_=None, **fields):
    """The start or the end of a call; an end without a type is that of a span."""
    return record(
        type_, outcome=outcome, trace=TRACE, span=number, flags=CALL | SPAN, bits=number, **fields
    )


def deliver_everything(sink):
    """What relays deliver of three processes: one lives, one has exited, one has died."""
    costs = {"shop:make": {"count": 2, "over": 1, "max": 9_000, "buckets": [[1, 1], [5, 1]]}}
    for number, writer in enumerate(PROCESSES):
        mine, n = RECORDS[number::3], 900 + 10 * number
        early = [ledger({"spool full": 1 + number}), sign(NOON + 1)]
        patiently(sink.write, [*mine[:70], *early], writer)
        begun = [call(n + each, "started", "begun", artifact=f"c{each}") for each in range(4)]
        patiently(sink.write, begun, writer)
        ends = [
            call(n, "succeeded"),  # of its span
            call(n + 1, "failed", "broken", artifact="another", at=NOON + n),
        ]
        late = [ledger({"spool full": 2 + number, "cut": 1}, costs)]
        late.append(sign(NOON + 2, ended=number == 1))
        patiently(sink.write, [*mine[70:], *ends, *late], writer)
    patiently(sink.note_alive, PROCESSES[0], NOON + 3)
    patiently(sink.note_end, PROCESSES[2])


def patiently(deliver, *arguments):
    """As a relay does: again until it is taken."""
    until = time.monotonic() + 30
    while True:
        try:
            return deliver(*arguments)
        except SinkUnavailableError:
            if time.monotonic() > until:
                raise


def send(topic, records):
    with closing(StreamSink(topic, {})) as sink:
        for batch in batches_of(records, 150):
            patiently(sink.write, batch, PROCESSES[0])


def content(url):
    """All rows of a store but what differs between two deliveries."""
    engine = connect(url, create=False, read_only=True)
    try:
        with engine.connect() as connection:
            return {
                table: sorted(map(repr, connection.execute(text(f"SELECT {columns} FROM {table}"))))
                for table, columns in {
                    "events": "CAST(event_id AS TEXT), type, artifact_id, organization_id,"
                    " occurred_at, point, mode, outcome, duration, trace_id, span_id,"
                    " CAST(attributes AS TEXT)",
                    "event_counts": "organization_id, type, day, count",
                    "artifacts": "artifact_id, organization_id, first_event_at, last_event_at,"
                    " events, ambiguous",
                    "losses": "process, reason, count, problem, last_at",
                    "costs": "process, point, count, histogram, last_at",
                    "processes": "process, number, host, service, pid, started_at,"
                    " delivered_until, ended",
                    "open_calls": "call, event_id, process",
                    "attribution_work": "artifact_id, done_until",
                    "deliveries JOIN events ON events.recorded_at = deliveries.recorded_at": (
                        "CAST(events.event_id AS TEXT), deliveries.process"
                    ),
                }.items()
            }
    finally:
        engine.dispose()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", ["", "?mode=structured"], ids=["binary", "structured"])
def test_the_same_calls_give_the_same_rows_by_both_ways(topic, backend, options, tmp_path):
    direct, consumed = (BACKENDS[backend](tmp_path / each) for each in ("direct", "consumed"))
    for each in ("direct", "consumed"):
        (tmp_path / each).mkdir()
    with closing(StoreSink(direct)) as sink:
        deliver_everything(sink)
    with closing(StreamSink(topic + options, {})) as sink:
        deliver_everything(sink)
    assert "415 events stored, 0 set aside" in consume_once(topic, consumed, tmp_path / "spool")
    rows = content(direct)
    assert all(rows[table] for table in rows if table != "attribution_work")
    for table, found in content(consumed).items():
        assert (table, found) == (table, rows[table])
    with closing(StreamSink(topic, {})) as sink:  # delivered again
        patiently(sink.write, RECORDS[:300:3], PROCESSES[0])
    consume_once(topic, consumed, tmp_path / "spool")
    assert content(consumed) == rows


def test_once_ends_at_the_end_that_was_there_though_more_is_sent(topic, tmp_path):
    writer, later = MessageWriter(PROCESSES[0]), itertools.count(1_000)
    producer = Producer({**kafka.broker().client(), "linger.ms": 0})

    class Fed(StreamConsumer):
        """There is something to read at each step."""

        def step(self, halting):
            bits = next(later)
            message = writer.write(record("later", NOON + bits, bits=bits))
            producer.produce(topic.rpartition("/")[2], message.value, headers=message.headers)
            producer.flush(20)
            while not (found := super().step(halting)):
                pass
            return found

    send(topic, RECORDS)
    url, until = sqlite(tmp_path), time.monotonic() + 30
    with (
        closing(StoreSink(url)) as sink,
        closing(Fed(StreamAddress.parse(topic), {}, "g", sink, lambda *_: None)) as consumer,
    ):
        _run_once(consumer, lambda: time.monotonic() > until)
    assert time.monotonic() < until
    with Store(url) as store:
        assert sum(each.count for each in store.counts() if each.type != "later") == 400


def test_what_is_no_event_of_sidelight_is_set_aside_and_stops_nothing(topic, tmp_path):
    good = [MessageWriter(PROCESSES[0]).write(each) for each in RECORDS[:3]]
    foreign = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/x", "ce_type": "other"}
    others = [(b"{", []), (b"", []), (b"{}", [*foreign.items()]), (b"{}", good[0].headers[:5])]
    producer = Producer(kafka.broker().client())
    for message, (value, headers) in zip([*good, good[0]], others, strict=True):
        producer.produce(topic.rpartition("/")[2], value, headers=headers)
        producer.produce(
            topic.rpartition("/")[2], message.value, message.key, headers=message.headers
        )
    producer.flush(20)
    url = sqlite(tmp_path)
    told = json.loads(consume_once(topic, url, tmp_path / "spool", "--json").splitlines()[0])
    assert told == {"stored": 4, "set_aside": 4, "pruned": 0, "erased": 0, "losses": {}}
    with Store(url) as store:
        assert store.size() == 3
    entries = [entry for _, entry in Quarantine(tmp_path / "spool").entries()]
    assert {entry.reason for entry in entries} == {"no event of sidelight"}
    assert {entry.offset for entry in entries}  # where it is in the topic
    topic_name = topic.rpartition("/")[2]
    assert all(entry.segment.startswith(f"{topic_name}[") for entry in entries)


def test_messages_in_the_quarantine_can_be_replayed(tmp_path):
    """An older sidelight has set aside what this one can read; somebody else's event stays."""
    (tmp_path / "spool").mkdir()
    quarantine = Quarantine(tmp_path / "spool")
    theirs = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_type", b"other")]
    ours = MessageWriter(PROCESSES[0]).write(RECORDS[1])
    for message in ([ours.key, ours.value, ours.headers], [None, b"{}", theirs]):
        quarantine.keep(
            Entry(
                kind="record",
                reason="no event of sidelight",
                problem="it has version '2.0' of CloudEvents",
                refused_by="store",
                sinks=("store",),
                at=NOON,
                writer={"store": sqlite(tmp_path)},
                segment="topic[0]",
                offset=7,
                payload=encode(message),
            )
        )
    url, spool = sqlite(tmp_path), tmp_path / "spool"
    ran = sidelight("spool", "replay", "--store", url, "--spool", spool)
    assert ran.code == 1, ran.err
    with Store(sqlite(tmp_path)) as store:
        (event,) = store.events()
    assert event.attributes == RECORDS[1][1].attributes
    assert len([*quarantine.entries()]) == 1


def test_a_poison_event_is_set_aside_and_can_be_replayed(topic, tmp_path):
    url = sqlite(tmp_path)
    store_directly(url, RECORDS[:1])
    engine = connect(url, create=False)
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TRIGGER poison BEFORE INSERT ON events WHEN NEW.span_id ="
                " '0000000000000007' BEGIN SELECT RAISE(ABORT, 'poison'); END"
            )
        )
    send(topic, RECORDS[:20])
    told = json.loads(consume_once(topic, url, tmp_path / "spool", "--json").splitlines()[0])
    assert (told["stored"], told["set_aside"]) == (19, 1)
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER poison"))
    engine.dispose()
    assert sidelight("spool", "replay", "--store", url, "--spool", tmp_path / "spool").code == 0
    with Store(url) as store:
        assert store.size() == 20


def test_pruned_and_erased_events_do_not_come_back(topic, tmp_path):
    url, spool = sqlite(tmp_path), tmp_path / "spool"

    def run(*arguments):
        assert sidelight(*arguments, "--store", url).code == 0

    def again(group):
        told = consume_once(topic, url, spool, "--group", group, "--json")
        with Store(url) as store:
            return json.loads(told.splitlines()[0]), store.size()

    send(topic, RECORDS)
    consume_once(topic, url, spool)
    mine = sum(moment.artifact_id == "a3" for _, moment in RECORDS)
    run("erase", "--artifact", "a3", "--yes", "--spool", str(spool))
    told, left = again("once")
    assert (told["erased"], left) == (mine, 400 - mine)
    run("prune", "--older-than", "2026-08-01", "--trust-clock")
    told, left = again("twice")
    assert (told["pruned"], told["stored"], left) == (400, 0, 0)
    assert not [*Quarantine(spool).entries()]


def test_the_doctor_tells_how_far_the_consumers_are(topic, tmp_path):
    def told():
        return [(each.state, each.message) for each in check_stream(topic, {}, "sidelight")]

    partitions = ("ok", f"{topic}: 3 partitions")
    send(topic, RECORDS)
    ahead, (state, message) = told()
    assert ahead == partitions
    assert state == "wrong"
    assert message.startswith("sidelight: 0 consumers, 400 messages behind (partition 0: ")
    consume_once(topic, sqlite(tmp_path), tmp_path / "spool")
    assert told() == [partitions, ("ok", "sidelight: 0 consumers, 0 messages behind")]


def test_the_doctor_tells_the_rate_of_consumers_that_are_behind(topic, tmp_path, monkeypatch):
    with (
        closing(StoreSink(sqlite(tmp_path))) as sink,
        closing(StreamConsumer(StreamAddress.parse(topic), {}, "g", sink, lambda *_: None)) as one,
    ):
        send(topic, RECORDS[:100])
        wait_until(lambda: one.step(lambda: False) + one.progress.stored >= 100)
        send(topic, RECORDS[100:])
        _, found = check_stream(topic, {}, "g")
        assert found.message.startswith("g: 1 consumer, 300 messages behind (partition 0: ")
        assert found.message.endswith("), 0/s stored")

        def meanwhile(_):
            wait_until(lambda: one.step(lambda: False) + one.progress.stored >= 400)

        monkeypatch.setattr("sidelight.stream.lag.sleep", meanwhile)
        _, found = check_stream(topic, {}, "g")
        assert re.search(r"\), [1-9][\d,]*/s stored$", found.message)


def test_a_question_does_not_wait_behind_a_fetch(topic, tmp_path):
    """A broker answers a connection in order, and this fetch waits longer than a question may."""
    environment = {"SIDELIGHT_KAFKA_FETCH_WAIT_MAX_MS": "7000"}
    with (
        closing(StoreSink(sqlite(tmp_path))) as sink,
        closing(
            StreamConsumer(StreamAddress.parse(topic), environment, "g", sink, lambda *_: None)
        ) as consumer,
    ):
        send(topic, RECORDS[:100])
        wait_until(lambda: consumer.step(lambda: False) + consumer.progress.stored >= 100)
        for _ in range(3):
            consumer.step(lambda: False)  # the fetch of an empty topic is on its way
            assert not sum(consumer.lag(consumer.ends()).values())


def test_messages_are_not_kept_while_their_events_are_stored(topic, tmp_path):
    """The garbage collector would walk the headers of each with every batch."""
    kept = []

    def count():
        return sum(isinstance(each, Message) for each in gc.get_objects())

    class Looking(StoreSink):
        def write_of_many(self, records):
            kept.append(count())
            super().write_of_many(records)

    gc.collect()
    before = count()  # of other tests

    send(topic, RECORDS[:100])
    with (
        closing(Looking(sqlite(tmp_path))) as sink,
        closing(
            StreamConsumer(StreamAddress.parse(topic), {}, "g", sink, lambda *_: None)
        ) as consumer,
    ):
        wait_until(lambda: consumer.step(lambda: False) + consumer.progress.stored >= 100)
    assert kept
    assert max(kept) <= before + 1  # the last one that was read


def test_a_batch_that_was_read_ahead_is_stored_once(topic, tmp_path, monkeypatch):
    """By this consumer also after a store that was away, else by the next one."""
    monkeypatch.setattr("sidelight.stream.batches._BATCH", 50)
    url, refusals = sqlite(tmp_path), [2]

    class Away(StoreSink):
        def write_of_many(self, records):
            if refusals[0]:
                refusals[0] -= 1
                raise SinkUnavailableError(sink="store", problem="away")
            super().write_of_many(records)

    def stored_after_a_step(consumer):
        consumer.step(lambda: False)
        return consumer.progress.stored

    send(topic, RECORDS)
    with closing(Away(url)) as sink:
        with closing(
            StreamConsumer(StreamAddress.parse(topic), {}, "g", sink, lambda *_: None)
        ) as consumer:
            wait_until(lambda: stored_after_a_step(consumer) and consumer._reader._ahead)
            first = consumer.progress.stored
            wait_until(lambda: stored_after_a_step(consumer) > first)
            stored = consumer.progress.stored
            assert not refusals[0]
            assert stored < 400
        with closing(
            StreamConsumer(StreamAddress.parse(topic), {}, "g", sink, lambda *_: None)
        ) as consumer:
            wait_until(lambda: stored_after_a_step(consumer) >= 400 - stored)
            assert consumer.progress.stored == 400 - stored
    with Store(url) as store:
        assert store.size() == sum(count.count for count in store.counts()) == 400


def test_metrics_tell_lag_and_what_became_of_events(topic, tmp_path):
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("test")
    aside = []
    with (
        closing(StoreSink(sqlite(tmp_path))) as sink,
        closing(
            StreamConsumer(
                StreamAddress.parse(topic), {}, "g", sink, lambda *given: aside.append(given)
            )
        ) as consumer,
    ):
        register(consumer.progress, meter)
        producer = Producer(kafka.broker().client())
        producer.produce(topic.rpartition("/")[2], b"{", partition=0)
        producer.flush(20)
        send(topic, RECORDS[:100])
        consumer.look_at_lag()
        before = metrics_of(reader)
        wait_until(lambda: consumer.step(lambda: False) + consumer.progress.stored >= 100)
        consumer.look_at_lag()
        after = metrics_of(reader)
    assert sum(v for (name, _), v in before.items() if name == "sidelight.consumer.lag") == 101
    assert sum(v for (name, _), v in after.items() if name == "sidelight.consumer.lag") == 0
    assert [after["sidelight.consumer.events", o] for o in ("stored", "set_aside")] == [100, 1]
    assert after["sidelight.consumer.failing", "store"] == 0
    assert len(aside) == 1
    assert {place for name, place in after if name == "sidelight.consumer.lag"} == {*"012"}


def metrics_of(reader):
    """Value by metric and attribute."""
    (resource,) = reader.get_metrics_data().resource_metrics
    return {
        (metric.name, *point.attributes.values()): point.value
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


KILLED = """
import os, signal, sys
from sidelight.stream.consumer import StreamConsumer
StreamConsumer._commit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from sidelight.cli import main
main()
"""


def test_killed_between_the_stores_commit_and_the_offsets(topic, tmp_path):
    url = sqlite(tmp_path)
    send(topic, RECORDS)
    python, _, _, *arguments = command(topic, url, tmp_path / "spool", "--once")
    ran = subprocess.run([python, "-c", KILLED, *arguments], env=environment(), timeout=60)
    assert ran.returncode == -signal.SIGKILL
    with Store(url) as store:
        assert 0 < store.size() <= 400  # a busy machine may have brought a part of them by then
    assert "400 events stored" in consume_once(topic, url, tmp_path / "spool")  # read again
    with Store(url) as store:
        assert store.size() == sum(count.count for count in store.counts()) == 400


def test_a_store_that_is_away_is_waited_for_and_sigterm_ends(topic, tmp_path):
    server = own_server()
    direct = new_database(server)
    with Proxy(server.address) as proxy:
        url = direct.replace(f":{server.port}/", f":{proxy.address[1]}/")
        with consuming(topic, url, tmp_path / "spool") as consumers:
            send(topic, RECORDS[:200])
            wait_until(lambda: size(direct) == 200)
            proxy.mode = "refuse"
            send(topic, RECORDS[200:])
            time.sleep(1.5)
            proxy.mode = "pass"
            wait_until(lambda: size(direct) == 400)
            assert consumers.stop() == [0, 0]


def size(url):
    try:
        with psycopg.connect(url) as connection:
            return connection.execute("SELECT count(*) FROM sidelight.events").fetchone()[0]
    except psycopg.errors.UndefinedTable:
        return 0
