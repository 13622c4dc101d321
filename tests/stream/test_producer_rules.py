"""The rules of the producer, each from a bug report; on a real broker."""

import subprocess
import sys
import time

import pytest
from confluent_kafka import KafkaError
from tests.support import kafka
from tests.support.consuming import environment, events_in
from tests.support.stored import NOON, deliver, record

import sidelight
from sidelight.cli.doctor.stream import check_stream
from sidelight.exceptions import ConfigurationError, SinkRefusedError, SinkUnavailableError
from sidelight.host import monotonic
from sidelight.stream import StreamAddress, StreamSink, client_properties
from sidelight.stream import producer as producer_module
from sidelight.stream.producer import StreamProducer

WRITER = {"resource": {"service.name": "shop"}}


def records(*numbers, **fields):
    return [
        record(at=NOON + n, artifact=f"a{n}", attributes={"n": n}, bits=n, **fields)
        for n in numbers
    ]


def numbers(topic):
    messages = kafka.broker().messages(topic)
    return [moment.attributes["n"] for _, moment in events_in(messages)]


@pytest.fixture
def topic():
    return kafka.broker().new_topic()


@pytest.fixture
def sink(topic):
    made = StreamSink(topic, {})
    yield made
    made.close()


# -- what librdkafka is told -----------------------------------------------------------------


def test_the_rules_are_set_and_cannot_be_changed(topic):
    address = StreamAddress.parse(topic)
    properties = producer_module._properties(address, {})
    assert properties["acks"] == "all"
    assert properties["enable.idempotence"] is True
    assert properties["message.timeout.ms"] == 0  # a local expiry would leave a gap
    assert properties["partitioner"] == "murmur2_random"
    for name in ("ACKS", "ENABLE_IDEMPOTENCE", "MESSAGE_TIMEOUT_MS", "BOOTSTRAP_SERVERS"):
        with pytest.raises(ConfigurationError, match="sidelight sets it"):
            StreamSink(topic, {f"SIDELIGHT_KAFKA_{name}": "1"})


def test_properties_come_from_a_file_and_variables_win(topic, tmp_path):
    file = tmp_path / "kafka.properties"
    file.write_text("# ours\nlinger.ms=7\n\n! and\nclient.id = shop\n")
    environment = {
        "SIDELIGHT_KAFKA_PROPERTIES": str(file),
        "SIDELIGHT_KAFKA_CLIENT_ID": "other",
        "SIDELIGHT_STREAM": "x",
    }
    properties = client_properties(StreamAddress.parse(topic), environment)
    assert (properties["linger.ms"], properties["client.id"]) == ("7", "other")
    for content, problem in (("linger.ms 7", "line 1 has no ="), (None, "No such file")):
        file.unlink()
        if content is not None:
            file.write_text(content)
        with pytest.raises(ConfigurationError, match=problem):
            client_properties(StreamAddress.parse(topic), environment)
        file.touch()


@pytest.mark.parametrize(
    "url",
    [
        "kafka://b1:9092",
        "kafka:///topic",
        "kafka://b1/a/b",
        "kafka://b1/topic?mode=odd",
        "kafka://b1/to pic",
        "http://b1/topic",
        "topic",
        "kafka://user:secret@b1/topic",
        7,
    ],
)
def test_a_wrong_address_is_refused_at_once_and_no_secret_is_told(url):
    with pytest.raises(ConfigurationError) as error:
        sidelight.configure(stream=url)
    assert "write kafka://host:9092,host:9092/topic" in str(error.value)
    assert "secret" not in str(error.value)


def test_an_unknown_property_is_refused_at_once_and_its_value_is_not_told(topic, tmp_path):
    with pytest.raises(ConfigurationError, match=r"sasl\.passwort") as error:
        StreamSink(topic, {"SIDELIGHT_KAFKA_SASL_PASSWORT": "hunter2"})
    assert "hunter2" not in str(error.value)


# -- what it does ----------------------------------------------------------------------------


def test_null_keys_are_spread_and_a_key_has_the_partition_of_javas_producers(topic):
    many = kafka.broker().new_topic(partitions=4)
    sink = StreamSink(many, {"SIDELIGHT_KAFKA_STICKY_PARTITIONING_LINGER_MS": "0"})
    deliver(sink, [record(at=NOON + n, artifact=None, bits=n) for n in range(200)], WRITER)
    deliver(
        sink, [record(at=NOON + n, artifact="invoice-7", bits=n) for n in range(200, 240)], WRITER
    )
    sink.close()
    messages = kafka.broker().messages(many)
    assert {each.partition() for each in messages if each.key() is None} == {0, 1, 2, 3}
    # murmur2("invoice-7"), as Java's Utils.toPositive(Utils.murmur2(key)) % 4
    assert {each.partition() for each in messages if each.key()} == {murmur2(b"invoice-7") % 4}


def murmur2(data):
    """Kafka's hash of a key, made positive."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    rest = data[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


def test_a_full_queue_is_polled_until_there_is_room(topic):
    sink = StreamSink(topic, {"SIDELIGHT_KAFKA_QUEUE_BUFFERING_MAX_MESSAGES": "10"})
    deliver(sink, records(*range(500)), WRITER)
    sink.close()
    assert numbers(topic) == [*range(500)]


def test_a_fatal_error_makes_a_new_producer_that_goes_on(sink, topic):
    deliver(sink, records(1), WRITER)
    broken = sink._producer
    broken._note_error(KafkaError(KafkaError._FATAL, "fenced", fatal=True))
    assert not broken.await_reports(0.1)
    deliver(sink, records(2), WRITER)
    assert sink._producer is not broken
    assert numbers(topic) == [1, 2]


def test_too_large_before_compression_is_refused_alone(topic):
    """A message of zeros is small when compressed, but librdkafka judges its full size."""
    sink = StreamSink(topic, {"SIDELIGHT_KAFKA_MESSAGE_MAX_BYTES": "100000"})
    (large,) = records(3)
    large[1].attributes["zeros"] = "0" * 200_000
    with pytest.raises(SinkRefusedError, match="larger than the topic takes") as refused:
        deliver(sink, [*records(1, 2), large, *records(4)], WRITER)
    sink.close()
    assert refused.value.facts["records"] == [large]
    assert sorted(numbers(topic)) == [1, 2, 4]


def test_a_topic_that_takes_nothing_is_the_suspect_and_fills_no_quarantine(topic):
    small = kafka.broker().new_topic(max_message_bytes="70")
    sink = StreamSink(small, {})
    with pytest.raises(SinkUnavailableError, match="larger than the topic takes"):
        for _ in range(100):
            sink.write(records(*range(100)), WRITER)
    sink.close()


def test_an_idle_producer_is_polled(sink):
    deliver(sink, records(1), WRITER)
    sink._polled_at = (now := monotonic()) + 60
    assert not sink.has_deferred_work
    sink._polled_at = now - 2.0
    assert sink.has_deferred_work
    sink.write([], {})
    assert sink._polled_at >= now


def test_an_unknown_topic_is_told_in_words_and_nothing_is_lost(topic):
    missing = topic + ".missing"
    sink = StreamSink(missing, {})
    for _ in range(2):
        with pytest.raises(SinkUnavailableError, match="the topic does not exist: create it"):
            sink.write(records(1), WRITER)
    (finding,) = check_stream(missing, {})
    assert (finding.state, "create it" in finding.message) == ("wrong", True)
    from confluent_kafka.admin import NewTopic  # noqa: PLC0415

    name = missing.rpartition("/")[2]
    admin = kafka.broker().admin()
    admin.create_topics([NewTopic(name, 1)])[name].result(20)
    deliver(sink, records(1), WRITER)
    sink.close()
    assert numbers(missing) == [1]


def test_brokers_that_do_not_answer_are_told_in_words():
    sink = StreamSink("kafka://127.0.0.1:1/topic", {})
    with pytest.raises(SinkUnavailableError, match=r"no broker can be reached|no broker answers"):
        sink.write(records(1), WRITER)
    begun = time.monotonic()
    sink.close()
    assert time.monotonic() - begun < 2.0
    (finding,) = check_stream("kafka://127.0.0.1:1/topic", {})
    assert finding.state == "wrong"


FORKS = """
import os, signal, sys, warnings
import sidelight
warnings.simplefilter("ignore")
sidelight.configure(stream=sys.argv[1], spool=sys.argv[2])
sidelight.emit("made", n=1)
assert sidelight.flush(20)
if (child := os.fork()) == 0:
    signal.alarm(30)
    sidelight.emit("made", n=2)
    sys.exit(not sidelight.flush(20))
_, status = os.waitpid(child, 0)
sidelight.emit("made", n=3)
assert sidelight.flush(20)
sys.exit(status != 0)
"""


def test_a_forked_child_has_a_producer_of_its_own_and_both_end(topic, tmp_path):
    """A producer's threads do not live in a child, and its end waits for them."""
    command = [sys.executable, "-c", FORKS, topic, str(tmp_path)]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=90)
    assert ran.returncode == 0, ran.stderr
    assert sorted(numbers(topic)) == [1, 2, 3]


def test_a_callback_calls_nothing_of_the_client(topic):
    """A poll, flush or close inside a callback deadlocks."""
    made = StreamProducer(StreamAddress.parse(topic), {})
    real = made._producer
    made._producer = None  # any call would fail
    made._note_error(KafkaError(KafkaError._TRANSPORT))
    made._note_failure(KafkaError(KafkaError._MSG_TIMED_OUT), b"k", b"v")
    made._producer = real
    assert made.take_failures().keys() == {(b"k", b"v")}
    made.close()
