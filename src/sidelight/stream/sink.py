"""The sink that sends events to a stream.

A batch is taken when each of its messages was acknowledged. A retry of the same batch waits for the
messages that are still on their way, and sends again only those that have failed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from sidelight.exceptions import SinkRefusedError, SinkUnavailableError
from sidelight.host import monotonic, sleep
from sidelight.spool import Record
from sidelight.store import ends_call, mark_undeclared
from sidelight.stream.connection import StreamAddress
from sidelight.stream.messages import Message, MessageWriter
from sidelight.stream.problems import OF_THE_MESSAGE, words
from sidelight.stream.producer import StreamProducer, check_properties

_PATIENCE: Final = 1.0  # seconds without any acknowledgement; the relay tries again
_PIECE: Final = 512  # records between two offers of the GIL: about 5 ms
_POLL_EVERY: Final = 1.0  # seconds
_ENDS: Final = 200  # calls that one message tells to have ended
_MOST_WRITERS: Final = 1_000
_DOUBTFUL: Final = 20  # messages refused one after the other before the topic is the suspect

_Item: TypeAlias = Record | list[Record]
"""An event or a ledger; or the records of calls that have ended, which are one message."""


class StreamSink:
    """Sends batches of records to a topic. One thread at a time uses it."""

    name: str = "stream"

    def __init__(
        self,
        url: str,
        environment: Mapping[str, str],
        count: Callable[[str, str], None] = lambda _reason, _problem: None,
    ) -> None:
        """Check the properties; connect nothing yet.

        Args:
            url: ``kafka://host:port,host:port/topic``.
            environment: has the properties of librdkafka.
            count: called with reason and problem for each event that breaks its declaration.

        Raises:
            ConfigurationError: the address or a property is not valid.
        """
        self.address = StreamAddress.parse(url)
        check_properties(self.address, environment)
        self._environment = environment
        self._count = count
        self._writers: dict[Any, MessageWriter] = {}
        self._writer = MessageWriter({})
        self._producer: StreamProducer | None = None
        self._is_checked = False
        self._polled_at = 0.0
        self._batch: object = None
        self._chunks: deque[Sequence[_Item]] = deque()
        self._sent = 0
        self._refused: list[Record] = []
        self._refusal = ""
        self._refused_in_a_row = 0

    @property
    def has_deferred_work(self) -> bool:
        """Whether the idle producer is to be polled: errors of its connection may have come in."""
        return self._producer is not None and monotonic() - self._polled_at > _POLL_EVERY

    def write(self, records: Sequence[Record], writer: dict[str, Any]) -> None:
        """Send a batch, and wait for its acknowledgements.

        Raises:
            SinkUnavailableError: an acknowledgement is missing; the same batch may be tried again.
            SinkRefusedError: the topic will never take the records in ``facts["records"]``; it has
                taken all others.
        """
        producer = self._open()
        if not records:
            return
        self._writer = self._writer_of(writer)
        batch = (records[0][1].random, len(records))
        if batch != self._batch:
            if self._sent:  # of another batch, which is still on its way; the spool has it
                self.close()
                producer = self._open()
            self._batch, self._refused = batch, []
            self._chunks = deque(self._chunks_of(records))
        while self._chunks:
            self._deliver_chunk(producer)
        self._batch, refused = None, self._refused
        if refused:
            raise SinkRefusedError(sink=str(self.address), problem=self._refusal, records=refused)

    def note_alive(self, writer: dict[str, Any], until: int) -> None:
        """Tell that all that a living process wrote until a time (ns) is in the topic.

        Raises:
            SinkUnavailableError: as in `write`.
        """
        self._note(writer, until, "alive")

    def note_end(self, writer: dict[str, Any]) -> None:
        """Tell that a process has ended, and that all that it wrote is in the topic.

        Raises:
            SinkUnavailableError: as in `write`.
        """
        self._note(writer, time.time_ns(), "died")

    def _note(self, writer: dict[str, Any], at: int, state: str) -> None:
        producer = self._open()
        if self._sent:  # of a batch that is still on its way; the spool has it
            self.close()
            producer = self._open()
        message = self._writer_of(writer).note(at, state=state)
        if not (producer.send(message, _PATIENCE) and producer.await_reports(_PATIENCE)):
            self.close()  # purges it
            raise SinkUnavailableError(sink=str(self.address), problem="it acknowledges nothing")
        if failures := producer.take_failures():
            problem = words(next(iter(failures.values())))
            raise SinkUnavailableError(sink=str(self.address), problem=problem)

    def sync(self) -> None:
        """Do nothing: the brokers are responsible for what they have acknowledged."""

    def close(self) -> None:
        """End the producer; the next write makes another one."""
        producer, self._producer = self._producer, None
        self._batch, self._sent, self._is_checked = None, 0, False
        if producer is not None:
            producer.close()

    def disown(self, *, busy: bool) -> bool:  # noqa: ARG002  # the protocol of sinks
        """Leave the producer alone in a forked child, which makes a new sink."""
        if self._producer is not None:
            self._producer.disown()
        return True

    # -- one batch ---------------------------------------------------------------------------

    def _chunks_of(self, records: Sequence[Record]) -> Iterator[Sequence[_Item]]:
        """Yield what to send: the events, then what is true when all of them were acknowledged."""
        marked, problems = mark_undeclared(records)  # a consumer does not know the declarations
        for problem in problems.values():
            self._count("event not as declared", problem)
        yield [record for record in marked if record[0].type is not None]
        notes: list[_Item] = [record for record in records if record[0].outcome == "ledger"]
        ends = [record for record in records if ends_call(*record)]
        yield notes + [ends[n : n + _ENDS] for n in range(0, len(ends), _ENDS)]

    def _writer_of(self, writer: dict[str, Any]) -> MessageWriter:
        """Return the writer of a process's messages."""
        key = writer.get("instance")
        found = self._writers.get(key)
        if found is None or found.process is not writer:
            if len(self._writers) > _MOST_WRITERS:
                self._writers.clear()
            found = MessageWriter(writer, structured=self.address.structured)
            self._writers[key] = found
        found.look_at_catalogue()
        return found

    def _message(self, item: _Item) -> Message:
        if type(item) is list:
            return self._writer.write_ends(item)
        return self._writer.write(item)  # type: ignore[arg-type]

    def _deliver_chunk(self, producer: StreamProducer) -> None:
        """Send the first chunk, wait for its reports, and decide about what has failed."""
        chunk = self._chunks[0]
        self._send(chunk, producer)
        if not producer.await_reports(_PATIENCE):
            raise self._unavailable(producer, "it acknowledges nothing")
        self._sent = 0
        self._chunks.popleft()
        failures = producer.take_failures()
        failed = []
        if failures:
            for item in chunk:
                message = self._message(item)
                if (message.key, message.value) in failures:
                    failed.append(item)
        if len(failed) < len(chunk):
            self._refused_in_a_row = 0
        if failed:
            self._decide(producer, failed, next(iter(failures.values())))

    def _send(self, chunk: Sequence[_Item], producer: StreamProducer) -> None:
        """Put the rest of a chunk into the producer's queue."""
        send = producer.send
        while piece := chunk[self._sent : self._sent + _PIECE]:
            for item in piece:
                if not send(self._message(item), _PATIENCE):
                    raise self._unavailable(producer, "the producer's queue is full")
                self._sent += 1
            if len(piece) == _PIECE:
                sleep(0)

    def _decide(self, producer: StreamProducer, failed: Sequence[_Item], error: Any) -> None:
        """Find the messages that are the cause of a failure; all others are sent again."""
        is_poison = error.code() in OF_THE_MESSAGE
        if is_poison and len(failed) > 1:  # brokers refuse a whole batch for one of its messages
            middle = len(failed) // 2
            self._chunks.extendleft([failed[middle:], failed[:middle]])
        elif is_poison and self._refused_in_a_row < _DOUBTFUL:
            self._refused_in_a_row += 1
            for item in failed:
                self._refused += item if type(item) is list else [item]  # type: ignore[list-item]
            self._refusal = words(error)
        else:
            self._chunks.appendleft(failed)
            raise self._unavailable(producer, words(error))

    # -- the producer ------------------------------------------------------------------------

    def _open(self) -> StreamProducer:
        if self._producer is not None:
            self._producer.poll()
            if self._producer.is_fatal:
                self.close()
        self._polled_at = monotonic()
        if self._producer is None:
            self._producer = StreamProducer(self.address, self._environment)
        if not self._is_checked:
            if problem := self._producer.check_topic(_PATIENCE):
                raise self._unavailable(self._producer, problem)
            self._is_checked = True
        return self._producer

    def _unavailable(self, producer: StreamProducer, problem: str) -> SinkUnavailableError:
        """Return an error that names the cause, as far as the producer or the cluster tells it."""
        if producer.is_fatal:  # another producer sends the batch again
            self.close()
        else:
            if self._is_checked:
                problem = producer.check_topic(_PATIENCE) or problem
            producer.poll()
        if producer.problem and producer.problem != problem:
            problem = f"{problem}; {producer.problem}"
            producer.problem = ""
        return SinkUnavailableError(sink=str(self.address), problem=problem)
