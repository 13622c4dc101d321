"""A user whom the brokers refuse: told in words, nothing lost, no password shown."""

import subprocess
import time

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from tests.support import kafka
from tests.support.consuming import command, environment, events_in
from tests.support.stored import record, sqlite

from sidelight import Store
from sidelight.cli.doctor.stream import check_stream
from sidelight.exceptions import SinkUnavailableError
from sidelight.stream import StreamSink

LOGIN = {
    "SIDELIGHT_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "SIDELIGHT_KAFKA_SASL_MECHANISM": "PLAIN",
    "SIDELIGHT_KAFKA_SASL_USERNAME": kafka.USER,
    "SIDELIGHT_KAFKA_SASL_PASSWORD": kafka.PASSWORD,
}
WRONG = {**LOGIN, "SIDELIGHT_KAFKA_SASL_PASSWORD": "guessed-password"}
BATCH = [record(attributes={"n": n}) for n in range(5)]


@pytest.fixture
def address():
    """A topic, by the listener that asks for a login."""
    cluster = kafka.own_broker()
    plain = cluster.new_topic()
    return plain.replace(cluster.servers, f"127.0.0.1:{cluster.brokers[0].login_port}")


def allow(kind, name, *operations):
    bindings = [
        AclBinding(
            kind,
            name,
            ResourcePatternType.LITERAL,
            f"User:{kafka.USER}",
            "*",
            operation,
            AclPermissionType.ALLOW,
        )
        for operation in operations
    ]
    admin = kafka.own_broker().admin()  # kept, because its end would end the request
    for done in admin.create_acls(bindings).values():
        done.result(20)


def told(sink, *expected):
    """What the sink says; it is asked until the brokers have answered."""
    until = time.monotonic() + 30
    while True:
        with pytest.raises(SinkUnavailableError) as raised:
            sink.write(BATCH, {})
        problem = str(raised.value)
        if any(each in problem for each in expected) or time.monotonic() > until:
            return problem


def test_a_wrong_password_is_told_and_not_shown(address):
    sink = StreamSink(address, WRONG)
    refused = "the brokers refuse the login: see SIDELIGHT_KAFKA_SASL_PASSWORD"
    problem = told(sink, refused)
    sink.close()
    (finding,) = check_stream(address, WRONG)
    for each in (problem, finding.message):
        assert refused in each
        assert "guessed-password" not in each


def test_no_right_to_write_is_told_and_nothing_is_lost(address):
    topic = address.rpartition("/")[2]
    sink = StreamSink(address, LOGIN)
    refused = "the user may not use the topic: grant the operations Describe and Write, or Read"
    assert refused in told(sink, refused)
    (finding,) = check_stream(address, LOGIN)
    assert refused in finding.message
    allow(ResourceType.TOPIC, topic, AclOperation.DESCRIBE)
    fatal = "grant IdempotentWrite on the cluster"  # the producer got no id
    problem = told(sink, refused, fatal)
    assert refused in problem or fatal in problem
    allow(ResourceType.TOPIC, topic, AclOperation.WRITE)
    until = time.monotonic() + 30
    while True:
        try:
            sink.write(BATCH, {})
            break
        except SinkUnavailableError:
            assert time.monotonic() < until
    sink.close()
    plain = f"kafka://{kafka.own_broker().servers}/{topic}"
    assert len(events_in(kafka.own_broker().messages(plain))) == len(BATCH)


def test_a_consumer_without_a_right_says_so_and_goes_on_when_it_has_it(address, tmp_path):
    topic, url = address.rpartition("/")[2], sqlite(tmp_path)
    sink = StreamSink(f"kafka://{kafka.own_broker().servers}/{topic}", {})
    until = time.monotonic() + 30
    while True:
        try:
            sink.write(BATCH, {})
            break
        except SinkUnavailableError:
            assert time.monotonic() < until
    sink.close()
    allow(ResourceType.TOPIC, topic, AclOperation.READ, AclOperation.DESCRIBE)
    group = f"group-of-{topic}"
    running = subprocess.Popen(
        command(address, url, tmp_path / "spool", "--group", group),
        env={**environment(), **LOGIN},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in running.stderr:
            if "the user may not use the group: grant Read on it" in line:
                break
        allow(ResourceType.GROUP, group, AclOperation.READ)
        for line in running.stderr:
            if "stream: it answers again" in line:
                break
        running.terminate()
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.stderr.close()
    with Store(url) as store:
        assert store.size() == len(BATCH)
