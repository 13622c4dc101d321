"""Row 25: a real cluster of three brokers, its consumers, and the network between, break."""

import contextlib
import time

import pytest
from confluent_kafka.admin import NewPartitions
from tests.support import kafka
from tests.support.consuming import consume_once, consuming, deliver_to_stream
from tests.support.emitting import Order
from tests.support.postgres import new_database
from tests.support.programs import caught_up, judge, running, stored, wait_until
from tests.support.stored import record

from sidelight.cli.doctor.stream import check_stream
from sidelight.exceptions import SinkUnavailableError
from sidelight.stream import StreamSink

ROUNDS_FULL = 5


@pytest.fixture(scope="module")
def cluster():
    kafka.require_kafka()
    with kafka.Cluster(3) as running:
        yield running


@pytest.fixture
def stream(cluster):
    for each in cluster.brokers:
        if not each.is_alive():
            each.launch()
    cluster.await_all()
    return cluster.new_topic(partitions=3)


def kill_a_broker(cluster, stream, consumers, which):
    cluster.brokers[which].kill()
    time.sleep(1.0)
    cluster.brokers[which].launch()
    cluster.await_all()


def kill_two_brokers(cluster, stream, consumers, which):
    """One replica in sync is fewer than min.insync.replicas: nothing is acknowledged."""
    for each in (which, (which + 1) % 3):
        cluster.brokers[each].kill()
    time.sleep(2.0)
    for each in (which, (which + 1) % 3):
        cluster.brokers[each].launch()
    cluster.await_all()


def freeze_a_broker(cluster, stream, consumers, which):
    cluster.brokers[which].pause()
    time.sleep(5.0)
    cluster.brokers[which].resume()


def add_partitions(cluster, stream, consumers, which):
    """Artifacts change their partition, and consumers get new ones."""
    topic = stream.rpartition("/")[2]
    admin = cluster.admin()
    number = len(admin.list_topics(topic, 20).topics[topic].partitions)
    admin.create_partitions([NewPartitions(topic, number + 2)])[topic].result(30)


def kill_a_consumer(cluster, stream, consumers, which):
    consumers.kill(which % 2)


def kill_a_broker_and_a_consumer(cluster, stream, consumers, which):
    kill_a_consumer(cluster, stream, consumers, which)
    kill_a_broker(cluster, stream, consumers, which)


FAULTS = {
    "a broker and a consumer are killed": kill_a_broker_and_a_consumer,
    "a broker is killed and comes back": kill_a_broker,
    "two of three brokers are killed and come back": kill_two_brokers,
    "a broker is frozen": freeze_a_broker,
    "partitions are added": add_partitions,
    "consumers are killed": kill_a_consumer,
}
SHORT = "a broker and a consumer are killed"


@pytest.mark.parametrize("fault", FAULTS)
def test_the_cluster_breaks(fault, full, cluster, stream, randomness, tmp_path, row):
    """Each of several events is acknowledged by Kafka, and is in the store once."""
    if not full and fault != SHORT:
        pytest.skip("in `make faults-b`")
    store, spools = new_database(), [tmp_path / "0", tmp_path / "1"]
    rounds = ROUNDS_FULL if full else 1
    with contextlib.ExitStack() as stack:
        programs = [
            stack.enter_context(
                running(
                    "",
                    spool,
                    order=Order(first=number * 1_000_000, pause=0.005, configure={}),
                    environment={"SIDELIGHT_STREAM": stream},
                )
            )
            for number, spool in enumerate(spools)
        ]
        consumers = stack.enter_context(consuming(stream, store, tmp_path / "consumers"))
        for program in programs:
            program.emit(50)
        for _ in range(rounds):
            before = stored(store)
            FAULTS[fault](cluster, stream, consumers, randomness.randrange(3))
            for program in programs:
                program.emit(100)
            wait_until(lambda before=before: stored(store) > before)
        for program in programs:
            assert program.stop() == 0, program.told()
        for spool in spools:
            deliver_to_stream(stream, spool)
        caught_up(store, *programs)
        assert consumers.stop() == [0, 0]
    row(25, f"Kafka: {fault}", injected=rounds, verdict=judge(store, *programs))


def test_too_few_replicas_in_sync_are_told_in_words(full, cluster, stream):
    """Nothing is lost: the same batch is taken when the replica is back."""
    if not full:
        pytest.skip("in `make faults-b`")
    strict = cluster.new_topic(min_insync_replicas="3")
    sink = StreamSink(strict, {})
    batch = [record(attributes={"n": 1})]
    cluster.brokers[0].kill()
    told = []

    def is_told():
        with contextlib.suppress(SinkUnavailableError):
            sink.write(batch, {})
        told[:] = [each.message for each in check_stream(strict, {})]
        return "of 3 replicas in sync, but min.insync.replicas is 3" in told[0]

    wait_until(is_told, 60)
    with pytest.raises(SinkUnavailableError, match=r"replicas in sync|has no leader"):
        sink.write(batch, {})
    cluster.brokers[0].launch()
    cluster.await_all()

    def is_taken():
        with contextlib.suppress(SinkUnavailableError):
            sink.write(batch, {})
            return True
        return False

    wait_until(is_taken, 60)
    sink.close()
    assert len(cluster.messages(strict)) == 1


@pytest.mark.parametrize("mode", ["refuse", "reset", "silent", "drip"])
def test_the_network_to_the_brokers_breaks(mode, full, cluster, stream, tmp_path, row):
    if not full:
        pytest.skip("in `make faults-b`")
    store, spool = new_database(), tmp_path / "spool"
    with cluster.proxies() as (servers, proxies):
        through = stream.replace(cluster.servers, servers)
        order = Order(pause=0.005, configure={})
        environment = {"SIDELIGHT_STREAM": through}
        with running("", spool, order=order, environment=environment) as program:
            program.emit(50)
            for proxy in proxies:
                proxy.mode = mode
            program.emit(300)
            time.sleep(3.0)
            for proxy in proxies:
                proxy.mode = "pass"
            program.emit(50)
            assert program.stop() == 0, program.told()
        deliver_to_stream(through, spool)
    consume_once(stream, store, tmp_path / "consumer")
    row(25, f"Kafka: a proxy that is in mode {mode}", injected=1, verdict=judge(store, program))
