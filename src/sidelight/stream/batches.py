"""Batches of a topic: what a consumer keeps of the messages that it has read.

While there is more to read than half a batch, the next batch is read by a thread of its own while
the present one is stored, because the store's server works then.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from confluent_kafka import KafkaException

from sidelight.exceptions import MessageError
from sidelight.host import sleep
from sidelight.stream.problems import error_of
from sidelight.stream.reading import Event, Sourced, Told, read_message

_BATCH: Final = 10_000  # messages of one transaction, as many as of a relay to the store
_BEHIND: Final = 0.5  # the share of a batch that tells that there is more to read
_IDLE: Final = 0.05  # seconds to wait for the first message of a batch …
_LINGER: Final = 0.005  # … and for more; a larger batch gathers while this one is stored
_READ_AT_ONCE: Final = 20  # messages between two offers of the GIL to the thread that stores

Message: TypeAlias = Any  # the client's types say None where there is none of a good message


class SetAside(NamedTuple):
    """A message that has no place in the store.

    Attributes:
        partition, offset: where it was read.
        service: the service that it names; "" where it names none.
        content: its record; where it holds none, its key, value and headers.
        reason, problem: why the store does not have it.
    """

    partition: int
    offset: int
    service: str
    content: object
    reason: str
    problem: str


@dataclass(slots=True)
class Batch:
    """What is kept of the messages of a batch.

    The messages are not kept, because each has a list of headers that the garbage collector walks.

    Attributes:
        messages: how many there were.
        records: of events, and of what messages tell of processes.
        places: partition and offset of each record's message.
        notes: what is to be held, each with partition and offset: see `notes`.
        unreadable: messages that are no events of sidelight.
        ends: the offset behind the last message, by partition.
        errors: errors of the client.
    """

    messages: int = 0
    records: list[Sourced] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    notes: list[tuple[Told, int, int]] = field(default_factory=list)
    unreadable: list[SetAside] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    errors: list[Any] = field(default_factory=list)

    def add(self, message: Message) -> None:
        """Add what a message holds."""
        if (failure := message.error()) is not None:
            self.errors.append(failure)
            return
        self.messages += 1
        place = partition, offset = message.partition(), message.offset()
        self.ends[partition] = offset + 1
        value, headers = message.value(), message.headers() or []
        try:
            read = read_message(value, headers)
        except MessageError as error:
            source = dict(headers).get("ce_source") or b""
            self.unreadable.append(
                SetAside(
                    *place,
                    source.decode(errors="replace"),
                    [message.key(), value, headers],
                    "no event of sidelight",
                    str(error.facts["problem"]),
                )
            )
            return
        if isinstance(read, Event):
            self.records.append(read)
            self.places.append(place)
            return
        self.records.extend((record, read.writer) for record in read.records)
        self.places.extend(place for _ in read.records)
        if read.sign is not None or read.state:
            self.notes.append((read, partition, offset))


class BatchReader:
    """Reads the batches of one consumer, in order.

    Args:
        consumer: the client.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._thread = ThreadPoolExecutor(1, "sidelight-consumer")
        self._ahead: Future[Batch] | None = None

    def next(self) -> Batch:
        """Return the next batch; after a large one, begin to read another."""
        ahead, self._ahead = self._ahead, None
        batch = self._read() if ahead is None else ahead.result()
        if batch.messages >= _BATCH * _BEHIND:
            self._ahead = self._thread.submit(self._read)
        return batch

    def settle(self) -> None:
        """Wait until no thread is inside the client; a batch that was read stays the next one."""
        if self._ahead is not None:
            self._ahead.exception()

    def close(self) -> None:
        """End the thread. What was read ahead is read again, because it was not committed."""
        self._thread.shutdown()

    def _read(self) -> Batch:
        batch = Batch()
        messages: list[Message] = []
        try:
            messages += self._consumer.consume(1, _IDLE)
            if messages:
                messages += self._consumer.consume(_BATCH - 1, _LINGER)
        except KafkaException as exception:
            batch.errors.append(error_of(exception))
        messages.reverse()
        while messages:
            batch.add(messages.pop())
            if len(messages) % _READ_AT_ONCE == 0:
                sleep(0)
        return batch
