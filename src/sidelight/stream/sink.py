"""The sink that sends events to a stream.

A batch is taken when each of its messages was acknowledged. A retry of the same batch waits for the
messages that are still on their way, and sends again only those that have failed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sidelight.exceptions import SinkRefusedError, SinkUnavailableError
from sidelight.host import monotonic, sleep
from sidelight.spool import Record
from sidelight.store import mark_undeclared
from sidelight.stream.connection import StreamAddress
from sidelight.stream.messages import MessageWriter
from sidelight.stream.problems import OF_THE_MESSAGE, words
from sidelight.stream.producer import StreamProducer, check_properties

_PATIENCE: Final = 1.0  # seconds without any acknowledgement; the relay tries again
_PIECE: Final = 512  # records between two offers of the GIL: about 5 ms
_POLL_EVERY: Final = 1.0  # seconds
_DOUBTFUL: Final = 20  # messages refused one after the other before the topic is the suspect


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
        self._writer = MessageWriter(structured=self.address.structured)
        self._producer: StreamProducer | None = None
        self._is_checked = False
        self._polled_at = 0.0
        self._batch: object = None
        self._chunks: deque[Sequence[Record]] = deque()
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
        batch = (records[0][1].random, len(records))
        if batch != self._batch:
            if self._sent:  # of another batch, which is still on its way; the spool has it
                self.close()
                producer = self._open()
            self._batch, self._refused = batch, []
            self._chunks = deque([self._marked(records)])
        service = str(writer.get("resource", {}).get("service.name", ""))
        while self._chunks:
            self._deliver_chunk(producer, service)
        self._batch, refused = None, self._refused
        if refused:
            raise SinkRefusedError(sink=str(self.address), problem=self._refusal, records=refused)

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

    def _marked(self, records: Sequence[Record]) -> Sequence[Record]:
        """Mark the events that break their declaration, because a consumer does not know it."""
        marked, problems = mark_undeclared(records)
        for problem in problems.values():
            self._count("event not as declared", problem)
        return marked

    def _deliver_chunk(self, producer: StreamProducer, service: str) -> None:
        """Send the first chunk, wait for its reports, and decide about what has failed."""
        chunk = self._chunks[0]
        while self._sent < len(chunk):
            message = self._writer.write(chunk[self._sent], service)
            if message is not None and not producer.send(message, _PATIENCE):
                raise self._unavailable(producer, "the producer's queue is full")
            self._sent += 1
            if self._sent % _PIECE == 0:
                sleep(0)
        if not producer.await_reports(_PATIENCE):
            raise self._unavailable(producer, "it acknowledges nothing")
        self._sent = 0
        self._chunks.popleft()
        failures = producer.take_failures()
        failed = []
        if failures:
            for record in chunk:
                message = self._writer.write(record, service)
                if message is not None and (message.key, message.value) in failures:
                    failed.append(record)
        if len(failed) < len(chunk):
            self._refused_in_a_row = 0
        if failed:
            self._decide(producer, failed, next(iter(failures.values())))

    def _decide(self, producer: StreamProducer, failed: Sequence[Record], error: Any) -> None:
        """Find the messages that are the cause of a failure; all others are sent again."""
        is_poison = error.code() in OF_THE_MESSAGE
        if is_poison and len(failed) > 1:  # brokers refuse a whole batch for one of its messages
            middle = len(failed) // 2
            self._chunks.extendleft([failed[middle:], failed[:middle]])
        elif is_poison and self._refused_in_a_row < _DOUBTFUL:
            self._refused_in_a_row += 1
            self._refused += failed
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
        """An error that names the cause, as far as the producer or the cluster tells it."""
        if producer.is_fatal:  # another producer sends the batch again
            self.close()
        elif self._is_checked:
            problem = producer.check_topic(_PATIENCE) or problem
        if producer.problem and producer.problem != problem:
            problem = f"{problem}; {producer.problem}"
            producer.problem = ""
        return SinkUnavailableError(sink=str(self.address), problem=problem)
