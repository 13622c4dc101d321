"""Errors of Kafka in words, with what helps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from sidelight.exceptions import ConfigurationError
from sidelight.stream.connection import StreamAddress, client_properties

_WORDS: Final = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: "the topic does not exist: create it, or correct its name",
    KafkaError._UNKNOWN_TOPIC: "the topic does not exist: create it, or correct its name",
    KafkaError._UNKNOWN_PARTITION: "the topic has lost a partition",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: (
        "the user may not use the topic: grant the operations Describe and Write, or Read"
    ),
    KafkaError.GROUP_AUTHORIZATION_FAILED: "the user may not use the group: grant Read on it",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: (
        "the user may not write idempotently: grant IdempotentWrite on the cluster"
    ),
    KafkaError._AUTHENTICATION: "the brokers refuse the login: see SIDELIGHT_KAFKA_SASL_PASSWORD",
    KafkaError.SASL_AUTHENTICATION_FAILED: (
        "the brokers refuse the login: see SIDELIGHT_KAFKA_SASL_PASSWORD"
    ),
    KafkaError.NOT_ENOUGH_REPLICAS: "too few replicas are in sync (min.insync.replicas)",
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND: (
        "too few replicas are in sync (min.insync.replicas)"
    ),
    KafkaError.MSG_SIZE_TOO_LARGE: "the message is larger than the topic takes (max.message.bytes)",
    KafkaError.INVALID_RECORD: "the topic takes no such message",
    KafkaError._ALL_BROKERS_DOWN: "no broker can be reached",
    KafkaError._TRANSPORT: "no broker can be reached",
    KafkaError._TIMED_OUT: "no broker answers",
}

#: Errors whose cause is the message itself.
OF_THE_MESSAGE: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG}
)


#: Errors that follow from another one, which tells more.
_CONSEQUENCES: Final = frozenset(
    {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._TIMED_OUT}
)


def latest_words(error: KafkaError, before: str) -> str:
    """Return an error in words, or those of an earlier one from which it follows.

    Brokers that refuse a login, for example, are then told to be down.
    """
    return before if before and error.code() in _CONSEQUENCES else words(error)


def words(error: KafkaError) -> str:
    """Return an error in words."""
    return _WORDS.get(error.code()) or f"{error.str()} ({error.name()})"


def error_of(exception: KafkaException) -> KafkaError:
    """Return the error that an exception holds."""
    error: KafkaError = exception.args[0]
    return error


def properties_refused(exception: KafkaException) -> ConfigurationError:
    """Return the error for properties that librdkafka does not take."""
    return ConfigurationError(
        setting="stream",
        problem=f"librdkafka does not take the properties: {error_of(exception).str()}",
        remedy="correct SIDELIGHT_KAFKA_… or the file of SIDELIGHT_KAFKA_PROPERTIES",
    )


def topic_problem(client: Any, topic: str, seconds: float, least_in_sync: int | None = None) -> str:
    """Ask the cluster what is wrong with a topic; return "" where nothing seems to be.

    Args:
        client: a producer, a consumer or an administrator.
        topic: its name.
        seconds: the longest wait for the answer.
        least_in_sync: the topic's min.insync.replicas; None where it is not known.
    """
    try:
        found = client.list_topics(topic, seconds).topics[topic]
    except KafkaException as exception:
        return words(error_of(exception))
    if found.error is not None:
        return words(found.error)
    for number, partition in sorted(found.partitions.items()):
        if partition.leader < 0:
            return f"partition {number} has no leader"
        in_sync, copies = len(partition.isrs), len(partition.replicas)
        if in_sync < (least_in_sync or copies):
            few = f"partition {number} has {in_sync} of {copies} replicas in sync"
            if least_in_sync is None:
                return f"{few}, which may be fewer than min.insync.replicas"
            return f"{few}, but min.insync.replicas is {least_in_sync}"
    return ""


def look_at_topic(
    address: StreamAddress, environment: Mapping[str, str], seconds: float
) -> tuple[str, int]:
    """Ask the brokers for a topic: what is wrong with it, or "", and how many partitions it has.

    Args:
        address: of the topic.
        environment: has the properties of librdkafka.
        seconds: the longest wait for each of two answers.

    Raises:
        ConfigurationError: a property is not valid.
    """
    last = [""]

    def note(error: KafkaError) -> None:
        last[0] = latest_words(error, last[0])

    properties: Any = client_properties(address, environment) | {"error_cb": note}
    admin = AdminClient(properties)
    try:
        found = admin.list_topics(address.topic, seconds).topics[address.topic]
    except KafkaException as exception:
        admin.poll(0)
        problem = words(error_of(exception))
        return f"{problem}; {last[0]}" if last[0] else problem, 0
    least = None if found.error else _least_in_sync(admin, address.topic, seconds)
    return topic_problem(admin, address.topic, seconds, least), len(found.partitions)


def _least_in_sync(admin: AdminClient, topic: str, seconds: float) -> int | None:
    """Return the topic's min.insync.replicas; None where the user may not read it."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    asked = admin.describe_configs([resource], request_timeout=seconds)
    try:
        return int(asked[resource].result(seconds)["min.insync.replicas"].value)
    except (KafkaException, TimeoutError, KeyError):
        return None
