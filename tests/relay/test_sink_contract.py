"""The contract of every sink: a relay drains into each of them in the same way."""

import contextlib
import gc
import os
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from tests.support import kafka
from tests.support.children import in_a_forked_child
from tests.support.consuming import events_in
from tests.support.otlp_server import POISON, OtlpServer
from tests.support.postgres import connected, new_database
from tests.support.proxy import Proxy
from tests.support.stored import NOON, deliver

from sidelight import Store
from sidelight.exceptions import SinkRefusedError, SinkUnavailableError
from sidelight.otlp import Endpoint, OtlpSink
from sidelight.record.format import Moment, Static
from sidelight.store import StoreSink
from sidelight.stream import StreamSink

STATIC = Static("done", "app:work", "scheduled", "succeeded", "work")
LARGE = os.urandom(100_000).hex()  # does not get much smaller by compression
WRITER = {"instance": "i", "resource": {"service.name": "s"}}


def record(n):
    trace = (n + 2).to_bytes(16, "big")
    attributes = {"n": n, **({"text": LARGE} if n == POISON else {})}
    return STATIC, Moment(NOON + n, n + 2, str(n), None, 2, trace, n + 2, 0, 5, attributes, None)


def records(*numbers):
    return [record(n) for n in numbers]


class StorePeer:
    """A database behind a store's sink."""

    busy_child_may_use_it = True

    def __init__(self, url):
        self.url = url

    def sink(self):
        return StoreSink(self.url)

    def arrived(self):
        with Store(self.url) as store:
            return [event.attributes["n"] for event in store.events()]


class Sqlite(StorePeer):
    busy_child_may_use_it = False  # closing would roll back the parent's transaction

    def __init__(self, stack, tmp_path):
        super().__init__(f"sqlite:///{tmp_path / 'events.db'}")
        self.path = tmp_path / "events.db"

    @contextlib.contextmanager
    def away(self):
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield

    def refuse_poison(self):
        with contextlib.closing(sqlite3.connect(self.path)) as other:
            other.execute(
                f"CREATE TRIGGER poison BEFORE INSERT ON events WHEN NEW.artifact_id = '{POISON}'"
                " BEGIN SELECT RAISE(ABORT, 'poison'); END"
            )


class Postgresql(StorePeer):
    def __init__(self, stack, tmp_path):
        self.direct = new_database()
        url = make_url(self.direct)
        self.proxy = stack.enter_context(Proxy((url.host, url.port)))
        host, port = self.proxy.address
        super().__init__(url.set(host=host, port=port).render_as_string(hide_password=False))

    @contextlib.contextmanager
    def away(self):
        self.proxy.mode = "refuse"
        yield
        self.proxy.mode = "pass"

    def refuse_poison(self):
        with connected(self.direct) as connection:
            connection.execute(
                "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS"
                " $$BEGIN RAISE 'poison'; END$$"
            )
            connection.execute(
                "CREATE TRIGGER poison BEFORE INSERT ON events FOR EACH ROW"
                f" WHEN (NEW.artifact_id = '{POISON}') EXECUTE FUNCTION poison()"
            )


class Otlp:
    busy_child_may_use_it = True
    protocol = "http/protobuf"

    def __init__(self, stack, tmp_path):
        self.server = stack.enter_context(OtlpServer(self.protocol))

    def sink(self):
        environment = {
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
        }
        return OtlpSink(Endpoint("traces", self.server.endpoint, environment))

    def arrived(self):
        return self.server.numbers

    @contextlib.contextmanager
    def away(self):
        self.server.stop()
        yield
        self.server.start()

    def refuse_poison(self):
        """It always does."""


class OtlpGrpc(Otlp):
    protocol = "grpc"


class Stream:
    """A topic of Kafka that takes no message of the poison record's size."""

    busy_child_may_use_it = True

    def __init__(self, stack, tmp_path):
        self.cluster = kafka.own_broker()
        self.topic = self.cluster.new_topic(max_message_bytes=str(len(LARGE) // 2))
        servers, (self.proxy,) = stack.enter_context(self.cluster.proxies())
        self.address = self.topic.replace(self.cluster.servers, servers)

    def sink(self):
        return StreamSink(self.address, {})

    def arrived(self):
        events = events_in(self.cluster.messages(self.topic))
        return [moment.attributes["n"] for _, moment in events]

    @contextlib.contextmanager
    def away(self):
        self.proxy.mode = "refuse"
        yield
        self.proxy.mode = "pass"

    def refuse_poison(self):
        """It always does."""


@pytest.fixture(params=[Sqlite, Postgresql, Otlp, OtlpGrpc, Stream], ids=lambda kind: kind.__name__)
def peer(request, tmp_path: Path):
    with contextlib.ExitStack() as stack:
        yield request.param(stack, tmp_path)


@pytest.fixture
def sink(peer):
    with contextlib.closing(peer.sink()) as made:
        yield made


def test_batches_arrive_in_order(peer, sink):
    deliver(sink, records(*range(300)), WRITER)
    deliver(sink, [], WRITER)
    deliver(sink, records(*range(300, 500)), WRITER)
    assert peer.arrived() == [*range(500)]


def test_a_batch_that_is_delivered_again_loses_nothing(peer, sink):
    for _ in range(2):
        deliver(sink, records(*range(20)), WRITER)
    assert sorted({*peer.arrived()}) == [*range(20)]
    if isinstance(peer, StorePeer):
        assert len(peer.arrived()) == 20


def test_a_peer_that_is_away_is_unavailable_and_gets_everything_later(peer, sink):
    deliver(sink, records(0), WRITER)
    with peer.away():
        for _ in range(2):
            with pytest.raises(SinkUnavailableError):
                sink.write(records(1, 2), WRITER)
        late = peer.sink()  # opens nothing
        with pytest.raises(SinkUnavailableError):
            late.write(records(3), WRITER)
    deliver(sink, records(1, 2), WRITER)
    deliver(late, records(3), WRITER)
    late.close()
    assert peer.arrived() == [0, 1, 2, 3]


def test_only_the_poison_record_is_refused(peer, sink):
    deliver(sink, records(0), WRITER)
    peer.refuse_poison()
    with pytest.raises(SinkRefusedError) as refused:
        deliver(sink, records(1, 2, POISON, 3), WRITER)
    named = refused.value.facts.get("records")
    if named is None:  # then the relay finds it, because the sink has taken nothing
        assert peer.arrived() == [0]
        deliver(sink, records(1, 2, 3), WRITER)
    else:
        assert named == records(POISON)
    with pytest.raises(SinkRefusedError):
        deliver(sink, records(POISON), WRITER)
    deliver(sink, records(4), WRITER)
    assert sorted(peer.arrived()) == [0, 1, 2, 3, 4]


def test_a_sink_that_was_closed_opens_again(peer, sink):
    for n in range(3):
        deliver(sink, records(n), WRITER)
        sink.close()
        sink.close()
    assert peer.arrived() == [0, 1, 2]


def test_another_thread_syncs_while_one_writes(peer, sink):
    deliver(sink, records(0), WRITER)
    syncing = threading.Thread(target=lambda: [sink.sync() for _ in range(50)])
    syncing.start()
    for n in range(1, 10):
        deliver(sink, records(n), WRITER)
    syncing.join()
    assert peer.arrived() == [*range(10)]


@pytest.mark.filterwarnings("ignore:.*multi-threaded")
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_forked_child_disowns_the_sink_and_the_parent_writes_on(peer, sink, busy):
    deliver(sink, records(0), WRITER)

    def disown():
        assert sink.disown(busy=busy) is (peer.busy_child_may_use_it or not busy)
        gc.collect()

    in_a_forked_child(disown)
    deliver(sink, records(1), WRITER)
    assert peer.arrived() == [0, 1]
