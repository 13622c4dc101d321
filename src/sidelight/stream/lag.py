"""How far the consumers of a group are behind the end of a topic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from sidelight.exceptions import SinkUnavailableError
from sidelight.stream.connection import StreamAddress, client_properties
from sidelight.stream.problems import error_of, words

_ASK_WITHIN: Final = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Group:
    """The state of a consumer group.

    Attributes:
        name: of the group.
        members: the number of its consumers.
        lag: messages that the group has not committed, by partition.
    """

    name: str
    members: int
    lag: Mapping[int, int]


def look_at_group(address: StreamAddress, environment: Mapping[str, str], name: str) -> Group:
    """Ask the brokers for a group, without joining it.

    Raises:
        ConfigurationError: a property is not valid.
        SinkUnavailableError: the brokers do not answer, or there is no such topic.
    """
    properties = client_properties(address, environment)
    consumer: Any = Consumer({**properties, "group.id": name})
    try:
        lag = lag_of(consumer, address.topic, ends_of(consumer, address.topic))
    finally:
        consumer.close()
    admin = AdminClient(properties)
    asked = admin.describe_consumer_groups([name], request_timeout=_ASK_WITHIN)
    try:
        members = len(asked[name].result(_ASK_WITHIN).members)
    except (KafkaException, TimeoutError):  # no such group yet, or no right to see it
        members = 0
    return Group(name, members, lag)


def ends_of(consumer: Any, topic: str) -> dict[int, int]:
    """The offset behind the last message of each partition, now.

    Raises:
        SinkUnavailableError: the brokers do not answer, or have no such topic.
    """
    try:
        found = consumer.list_topics(topic, _ASK_WITHIN).topics[topic]
        if found.error is not None:
            raise SinkUnavailableError(sink=topic, problem=words(found.error))
        places = [TopicPartition(topic, number) for number in found.partitions]
        return {
            each.partition: consumer.get_watermark_offsets(each, _ASK_WITHIN)[1] for each in places
        }
    except KafkaException as exception:
        raise _unavailable(topic, exception) from exception


def lag_of(consumer: Any, topic: str, ends: Mapping[int, int]) -> dict[int, int]:
    """How many messages before ``ends`` the consumer's group has not committed, by partition.

    Raises:
        SinkUnavailableError: the brokers do not answer.
    """
    try:
        committed = consumer.committed([TopicPartition(topic, each) for each in ends], _ASK_WITHIN)
        reached = {}
        for each in committed:
            first = consumer.get_watermark_offsets(each, _ASK_WITHIN)[0] if each.offset < 0 else 0
            reached[each.partition] = max(first, each.offset)
    except KafkaException as exception:
        raise _unavailable(topic, exception) from exception
    return {number: max(0, end - reached[number]) for number, end in ends.items()}


def _unavailable(topic: str, exception: KafkaException) -> SinkUnavailableError:
    return SinkUnavailableError(sink=topic, problem=words(error_of(exception)))
