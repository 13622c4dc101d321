"""How far the consumers of a group are behind the end of a topic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from sidelight.exceptions import SinkUnavailableError
from sidelight.host import monotonic, sleep
from sidelight.stream.connection import StreamAddress, client_properties
from sidelight.stream.problems import error_of, words

_ASK_WITHIN: Final = 5.0  # seconds
_ASK_AGAIN: Final = 0.1  # seconds
_MEASURED: Final = 1.0  # seconds in which the rate of a group is measured
#: The broker that knows the group's offsets has just changed, or is about to know them.
_COORDINATOR_MOVES: Final = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)


@dataclass(frozen=True, slots=True)
class Group:
    """The state of a consumer group.

    Attributes:
        name: of the group.
        members: the number of its consumers.
        lag: messages that the group has not stored, by partition.
        rate: messages that it stores in a second; 0 where it has no consumer or is not behind.
    """

    name: str
    members: int
    lag: Mapping[int, int]
    rate: int = 0


def look_at_group(address: StreamAddress, environment: Mapping[str, str], name: str) -> Group:
    """Ask the brokers for a group, without joining it; where it is behind, twice in a second.

    Raises:
        ConfigurationError: a property is not valid.
        SinkUnavailableError: the brokers do not answer, or there is no such topic.
    """
    properties = client_properties(address, environment)
    admin = AdminClient(properties)
    asked = admin.describe_consumer_groups([name], request_timeout=_ASK_WITHIN)
    try:
        members = len(asked[name].result(_ASK_WITHIN).members)
    except (KafkaException, TimeoutError):  # no such group yet, or no right to see it
        members = 0
    consumer: Any = Consumer({**properties, "group.id": name})
    rate = 0
    try:
        lag = lag_of(consumer, address.topic, ends_of(consumer, address.topic))
        if members and any(lag.values()):
            before = sum(reached_of(consumer, address.topic, lag).values())
            began = monotonic()
            sleep(_MEASURED)
            stored = sum(reached_of(consumer, address.topic, lag).values()) - before
            rate = round(stored / (monotonic() - began))
    finally:
        consumer.close()
    return Group(name, members, lag, rate)


def ends_of(consumer: Any, topic: str) -> dict[int, int]:
    """Return the offset behind the last message of each partition, now.

    Raises:
        SinkUnavailableError: the brokers do not answer, or have no such topic.
    """
    try:
        found = consumer.list_topics(topic, _ASK_WITHIN).topics[topic]
        if found.error is not None:
            raise SinkUnavailableError(sink=topic, problem=words(found.error))
        return _offsets(consumer, topic, found.partitions, OFFSET_END)
    except KafkaException as exception:
        raise _unavailable(topic, exception) from exception


def reached_of(consumer: Any, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """Return the offset up to which the consumer's group has stored each partition.

    That is what it has committed, or what the metadata of the commit says: see `notes`.

    Raises:
        SinkUnavailableError: the brokers do not answer.
    """
    try:
        committed = _committed(consumer, [TopicPartition(topic, n) for n in partitions])
        reached = {each.partition: _stored_until(each) for each in committed}
        unread = [number for number, offset in reached.items() if offset < 0]
        first = _offsets(consumer, topic, unread, OFFSET_BEGINNING) if unread else {}
    except KafkaException as exception:
        raise _unavailable(topic, exception) from exception
    return {**reached, **first}


def _committed(consumer: Any, places: Sequence[TopicPartition]) -> Sequence[TopicPartition]:
    """Ask for the committed offsets, again while the group's coordinator moves."""
    until = monotonic() + _ASK_WITHIN
    while True:
        try:
            answer: Sequence[TopicPartition] = consumer.committed(places, _ASK_WITHIN)
        except KafkaException as exception:
            if error_of(exception).code() not in _COORDINATOR_MOVES or monotonic() >= until:
                raise
            sleep(_ASK_AGAIN)
        else:
            return answer


def _stored_until(committed: TopicPartition) -> int:
    noted: Any = committed.metadata
    return max(committed.offset, int(noted) if noted and noted.isdigit() else -1)


def _offsets(consumer: Any, topic: str, partitions: Iterable[int], which: int) -> dict[int, int]:
    """Return the first or the last offset of partitions: one request to each broker."""
    places = [TopicPartition(topic, number, which) for number in partitions]
    answers = consumer.offsets_for_times(places, _ASK_WITHIN)
    for each in answers:
        if each.error is not None:
            raise KafkaException(each.error)
    return {each.partition: each.offset for each in answers}


def lag_of(consumer: Any, topic: str, ends: Mapping[int, int]) -> dict[int, int]:
    """Return how many messages before ``ends`` the consumer's group has not stored, by partition.

    Raises:
        SinkUnavailableError: the brokers do not answer.
    """
    reached = reached_of(consumer, topic, ends)
    return {number: max(0, end - reached[number]) for number, end in ends.items()}


def _unavailable(topic: str, exception: KafkaException) -> SinkUnavailableError:
    return SinkUnavailableError(sink=topic, problem=words(error_of(exception)))
