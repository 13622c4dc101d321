"""Row 25: a real cluster of three brokers, its consumers, and the network between, break."""

import contextlib
import json
import subprocess
import sys
import time

import pytest
from confluent_kafka import ElectionType, KafkaException, TopicPartition
from confluent_kafka.admin import NewPartitions
from tests.support import kafka
from tests.support.consuming import consume_once, consuming, deliver_to_stream, environment
from tests.support.emitting import Order
from tests.support.postgres import new_database, own_server
from tests.support.programs import caught_up, judge, running, stored, wait_until
from tests.support.proxy import Proxy
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


def move_leaders(cluster, stream, consumers, which):
    """Each partition gets another of its replicas as leader, while both sides are at work.

    On a busy machine a broker may miss its heartbeats. Then a partition is led by a replica that is
    not its first, and a replica that lags cannot be elected at once.
    """
    topic = stream.rpartition("/")[2]
    admin = cluster.admin()
    before = leaders_of(admin, topic)
    plan = {
        "version": 1,
        "partitions": [
            {"topic": topic, "partition": number, "replicas": behind(leader, replicas)}
            for number, (leader, replicas) in before.items()
        ],
    }
    path = cluster.directory / "plan.json"
    path.write_text(json.dumps(plan))
    program = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
    named = ["--bootstrap-server", cluster.servers, "--reassignment-json-file", path, "--execute"]
    subprocess.run(kafka.java(program, *named), check=True, capture_output=True, timeout=60)
    wanted = {each["partition"]: each["replicas"] for each in plan["partitions"]}
    wait_until(lambda: {n: r for n, (_, r) in leaders_of(admin, topic).items()} == wanted)
    places = [TopicPartition(topic, number) for number in before]

    def have_moved():
        if all(leader == r[0] for leader, r in leaders_of(admin, topic).values()):
            return True
        with contextlib.suppress(KafkaException):
            admin.elect_leaders(ElectionType.PREFERRED, places).result(30)
        return False

    wait_until(have_moved)
    assert all(wanted[number][0] != leader for number, (leader, _) in before.items())


def behind(leader, replicas):
    """Return the replicas in another order: the leader comes last."""
    return [*(each for each in replicas if each != leader), leader]


def leaders_of(admin, topic):
    """Leader and replicas of each partition."""
    found = admin.list_topics(topic, 20).topics[topic].partitions
    return {number: (each.leader, each.replicas) for number, each in found.items()}


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
    "leaders move": move_leaders,
    "consumers are killed": kill_a_consumer,
}
SHORT = "a broker and a consumer are killed"


@pytest.mark.parametrize(
    "fault", [pytest.param(each, marks=[pytest.mark.long] * (each != SHORT)) for each in FAULTS]
)
def test_the_cluster_breaks(fault, full, cluster, stream, randomness, tmp_path, row):
    """Each of several events is acknowledged by Kafka, and is in the store once."""
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
    row(21, f"Kafka: {fault}", injected=rounds, verdict=judge(store, *programs))


@pytest.mark.long
def test_relays_and_consumers_are_killed_at_random(cluster, stream, randomness, tmp_path, row):
    """Each kill finds a relay or a consumer somewhere else: at a read, a send, a commit."""
    store, spool, kills = new_database(), tmp_path / "spool", 40
    with contextlib.ExitStack() as stack:
        order = Order(pause=0.002, configure={"relay": "external"})
        program = stack.enter_context(
            running("", spool, order=order, environment={"SIDELIGHT_STREAM": stream})
        )
        consumers = stack.enter_context(consuming(stream, store, tmp_path / "consumers"))
        relay = None
        for _ in range(kills):
            relay = relay or relaying_to(stream, spool)
            time.sleep(randomness.uniform(0.2, 3.0))
            if randomness.random() < 0.6:
                relay.kill()
                relay.wait()
                relay = None
            else:
                consumers.kill(randomness.randrange(2))
        if relay is not None:
            relay.kill()
            relay.wait()
        assert program.stop() == 0, program.told()
        deliver_to_stream(stream, spool)
        caught_up(store, program)
        assert consumers.stop() == [0, 0]
    verdict = judge(store, program)
    row(21, "Kafka: relays and consumers are killed at random", injected=kills, verdict=verdict)


def relaying_to(stream, spool):
    command = ["-m", "sidelight", "relay", "--stream", stream, "--spool", str(spool)]
    quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, *command], env=environment(), **quiet)


@pytest.mark.long
def test_the_store_is_away_while_consumers_hold(cluster, stream, tmp_path, row):
    """For a minute they stay in the group, whose session is shorter, and callers notice nothing."""
    server = own_server()
    direct, spool = new_database(server), tmp_path / "spool"
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(Proxy(server.address))
        through = direct.replace(f":{server.port}/", f":{proxy.address[1]}/")
        order = Order(pause=0.005, configure={})
        program = stack.enter_context(
            running("", spool, order=order, environment={"SIDELIGHT_STREAM": stream})
        )
        consumers = stack.enter_context(consuming(stream, through, tmp_path / "consumers"))
        program.emit(50)
        wait_until(lambda: stored(direct) > 0)
        time.sleep(8.0)  # until the killed consumers of other rows have left the group
        wait_until(lambda: len(members_of(cluster)) == 2)
        before = members_of(cluster)
        proxy.mode = "refuse"
        time.sleep(60.0)
        assert members_of(cluster) == before
        proxy.mode = "pass"
        program.emit(50)
        assert program.stop() == 0, program.told()
        deliver_to_stream(stream, spool)
        caught_up(direct, program)
        assert consumers.stop() == [0, 0]
    row(21, "Kafka: the store is away", injected=1, verdict=judge(direct, program))


def members_of(cluster):
    admin = cluster.admin()  # kept, because its end would end the request
    group = admin.describe_consumer_groups(["sidelight"])["sidelight"].result(20)
    return {member.member_id for member in group.members}


@pytest.mark.long
def test_too_few_replicas_in_sync_are_told_in_words(cluster, stream):
    """Nothing is lost: the same batch is taken when the replica is back."""
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


@pytest.mark.long
@pytest.mark.parametrize("mode", ["refuse", "reset", "silent", "drip"])
def test_the_network_to_the_brokers_breaks(mode, cluster, stream, tmp_path, row):
    store, spool = new_database(), tmp_path / "spool"
    with cluster.proxies() as (servers, proxies):
        through = stream.replace(cluster.servers, servers)
        order = Order(pause=0.005, configure={})
        named = {"SIDELIGHT_STREAM": through}
        with running("", spool, order=order, environment=named) as program:
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
    row(21, f"Kafka: a proxy that is in mode {mode}", injected=1, verdict=judge(store, program))
