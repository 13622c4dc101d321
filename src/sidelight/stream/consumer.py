"""A consumer: reads a topic as one of a group, and writes its events into a store.

A batch goes into the store in one transaction, then its offsets are committed. So a consumer that
is killed in between reads the batch again, and the store ignores the events that it has. While the
store does not answer, the consumer holds its batch and stays in the group.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from confluent_kafka import Consumer, KafkaException, TopicPartition

from sidelight.exceptions import (
    ConfigurationError,
    MessageError,
    SinkRefusedError,
    SinkUnavailableError,
)
from sidelight.host import monotonic
from sidelight.spool import Health, Record, Sink
from sidelight.stream.connection import StreamAddress, client_properties
from sidelight.stream.lag import ends_of, lag_of
from sidelight.stream.messages import record_of
from sidelight.stream.problems import error_of, words

_BATCH: Final = 5_000  # messages of one transaction
_LINGER: Final = 0.05  # seconds in which a batch fills up
_FIRST_BACK_OFF: Final = 0.05  # seconds; doubles with each failure …
_LONGEST_BACK_OFF: Final = 2.0  # … up to this
_DOUBTFUL: Final = 20  # events refused one after the other before the store is the suspect
_PRUNED: Final = "older than the store keeps"
_DEFAULTS: Final = {
    "queued.max.messages.kbytes": 32 * 1024,
    "reconnect.backoff.max.ms": 2_000,
    "session.timeout.ms": 10_000,
}
_RULES: Final = {
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
}

Message: TypeAlias = Any  # the client's types say None where there is none of a good message
SetAside: TypeAlias = Callable[[Message, Record | None, str, str], None]
"""Keeps a message that has no place in the store: with its record, a reason and a problem."""


@dataclass(slots=True)
class Progress:
    """What a consumer has done.

    Attributes:
        stored: events that were written to the store, those among them that it had included.
        set_aside: messages that have no place in the store.
        pruned: events that were pruned from the store before, and stay away.
        store: how the store is doing.
        stream: how the brokers are doing.
    """

    stored: int = 0
    set_aside: int = 0
    pruned: int = 0
    store: Health = field(default_factory=Health)
    stream: Health = field(default_factory=Health)


class StreamConsumer:
    """One consumer of a group. One thread uses it.

    Attributes:
        progress: what it has done.
    """

    def __init__(
        self,
        address: StreamAddress,
        environment: Mapping[str, str],
        group: str,
        store: Sink,
        set_aside: SetAside,
    ) -> None:
        """Join the group.

        Args:
            address: of the topic.
            environment: has the properties of librdkafka.
            group: the name of the group; consumers of one group share the partitions.
            store: the sink of the store.
            set_aside: keeps a message that has no place in the store.

        Raises:
            ConfigurationError: librdkafka does not take the properties.
        """
        self.progress = Progress()
        self._topic = address.topic
        self._store = store
        self._set_aside = set_aside
        self._refused_in_a_row = 0
        properties = {**_DEFAULTS, **client_properties(address, environment), **_RULES}
        try:
            self._consumer = Consumer(
                {**properties, "group.id": group, "error_cb": self._note_error}
            )
        except KafkaException as exception:
            raise ConfigurationError(
                setting="stream",
                problem=f"librdkafka does not take the properties: {error_of(exception).str()}",
                remedy="correct SIDELIGHT_KAFKA_… or the file of SIDELIGHT_KAFKA_PROPERTIES",
            ) from exception
        self._consumer.subscribe([self._topic])

    def step(self, halting: Callable[[], bool]) -> int:
        """Take one batch to the store, and return how many messages it had.

        ``halting`` tells whether to give up a batch that the store does not take. The messages are
        read again then, by this group's next consumer.
        """
        try:
            messages: Sequence[Message] = self._consumer.consume(_BATCH, _LINGER)
        except KafkaException as exception:
            self._note_error(error_of(exception))
            return 0
        good = []
        for message in messages:
            if (error := message.error()) is not None:
                self._note_error(error)
            else:
                good.append(message)
        if not good:
            if getattr(self._store, "has_deferred_work", False):
                self._write([], halting)
            return 0
        self.progress.stream.recover()
        if self._take(good, halting):
            self._commit(good)
        return len(good)

    def ends(self) -> dict[int, int]:
        """The offset behind the last message of each partition, now: see `ends_of`."""
        return ends_of(self._consumer, self._topic)

    def lag(self, ends: Mapping[int, int]) -> dict[int, int]:
        """How far the group is behind ``ends``, by partition: see `lag_of`."""
        return lag_of(self._consumer, self._topic, ends)

    def close(self) -> None:
        """Leave the group, so that its partitions go to the other consumers at once."""
        self._consumer.close()

    # -- one batch ---------------------------------------------------------------------------

    def _take(self, messages: Sequence[Message], halting: Callable[[], bool]) -> bool:
        """Store the events of a batch; return False where the store did not take them."""
        records, sources = [], {}
        for message in messages:
            try:
                record = record_of(message.value(), message.headers() or ())
            except MessageError as error:
                self.progress.set_aside += 1
                self._set_aside(message, None, "no event of sidelight", str(error.facts["problem"]))
            else:
                records.append(record)
                sources[record[1].random] = message
        pieces = deque([records] if records else [])
        while pieces:
            piece = pieces.popleft()
            refusal = self._write(piece, halting)
            if refusal is None:
                return False
            problem, poison, reason = refusal
            if not problem:
                self._refused_in_a_row = 0
                self.progress.stored += len(piece)
            elif poison is None and len(piece) > 1:
                middle = len(piece) // 2
                pieces.extendleft([piece[middle:], piece[:middle]])
            else:
                self._refuse(poison or piece, sources, problem, reason)
                self.progress.stored += len(piece) - len(poison or piece)
        return True

    def _refuse(
        self,
        records: Iterable[Record],
        sources: Mapping[int, Message],
        problem: str,
        reason: str | None,
    ) -> None:
        for record in records:
            if reason == _PRUNED:
                self.progress.pruned += 1
                continue
            self._refused_in_a_row += 1
            self.progress.set_aside += 1
            source = sources[record[1].random]
            self._set_aside(source, record, reason or "refused by store", problem)

    def _write(
        self, records: Sequence[Record], halting: Callable[[], bool]
    ) -> tuple[str, Sequence[Record] | None, str | None] | None:
        """Write until the store takes or refuses the records; None where it is given up.

        Returns:
            The problem, "" where there is none; the refused records, where the store names them;
            the reason, where it has one.
        """
        failures = 0
        while True:
            try:
                self._store.write(records, {"instance": "consumer"})
                self._store.sync()
            except SinkRefusedError as error:
                facts: Any = error.facts
                problem, reason = str(facts["problem"]), facts.get("reason")
                if reason is not None or self._refused_in_a_row < _DOUBTFUL or len(records) > 1:
                    return problem, facts.get("records"), reason
                self.progress.store.fail(f"it refuses every event: {problem}")
            except (SinkUnavailableError, OSError) as error:
                self.progress.store.fail(str(error))
            else:
                self.progress.store.recover()
                return "", None, None
            if halting():
                return None
            self._hold(min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2 ** min(failures, 10)))
            failures += 1

    def _hold(self, seconds: float) -> None:
        """Wait, and stay in the group: a consumer that does not poll would be removed from it."""
        until = monotonic() + seconds * random.uniform(0.8, 1.2)  # noqa: S311
        try:
            while (left := until - monotonic()) > 0:
                self._consumer.pause(self._consumer.assignment())
                early: Message = self._consumer.poll(left)
                if early is not None and early.error() is None:  # of a new partition
                    self._consumer.seek(
                        TopicPartition(self._topic, early.partition(), early.offset())
                    )
            self._consumer.resume(self._consumer.assignment())
        except KafkaException as exception:
            self._note_error(error_of(exception))

    def _commit(self, messages: Iterable[Message]) -> None:
        """Commit the offsets of the partitions that this consumer still has."""
        last = {message.partition(): message.offset() + 1 for message in messages}
        try:
            mine = {each.partition for each in self._consumer.assignment()}
            offsets = [
                TopicPartition(self._topic, number, offset)
                for number, offset in last.items()
                if number in mine
            ]
            if offsets:
                self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as exception:  # another consumer reads them again
            self._note_error(error_of(exception))

    def _note_error(self, error: Any) -> None:
        self.progress.stream.fail(words(error))
