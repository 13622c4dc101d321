"""The producer of a relay: idempotent, and acknowledged by all replicas that are in sync.

Rules, each of which has a test:

- The relay makes it, and a forked child makes its own: a producer's threads do not live in a child.
- A message has no timeout of its own. One that expired would leave a gap in the sequence, which is
  a fatal error for those behind it.
- Callbacks only note what they are told. They call nothing of the client, which may deadlock.
- Each wait is bounded. What is given up is purged: the spool still has it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from sidelight.host import keep_for_ever, monotonic
from sidelight.stream.connection import StreamAddress, client_properties
from sidelight.stream.messages import Message as Event
from sidelight.stream.problems import error_of, latest_words, properties_refused, topic_problem

_DEFAULTS: Final = {
    "compression.type": "lz4",
    # A flush does not wait for it. While a batch is being written, larger requests cost less.
    "linger.ms": 50,
    "partitioner": "murmur2_random",  # as Java's producers: one artifact, one partition
    "queue.buffering.max.kbytes": 64 * 1024,
    "reconnect.backoff.max.ms": 2_000,
    "request.timeout.ms": 5_000,
    "socket.timeout.ms": 10_000,  # a frozen broker holds up its partitions for as long
}
_RULES: Final = {
    "acks": "all",
    "delivery.report.only.error": True,  # a call into Python for each message costs a microsecond
    "enable.idempotence": True,
    "message.timeout.ms": 0,  # never
}
#: librdkafka prints a fatal error on stderr. The sink tells it in words, at a limited rate.
_silent: Final = logging.Logger("sidelight.librdkafka", logging.CRITICAL + 1)
_CLOSE_WITHIN: Final = 0.1  # seconds
_SLICE: Final = 0.1  # seconds of one flush; between two the thread sees signals
_ANY_PARTITION: Final = -1  # the partitioner chooses
_NOW: Final = 0


class StreamProducer:
    """Sends messages to one topic, and tells which were refused. One thread uses it.

    Attributes:
        is_fatal: the producer cannot be used any more; another one has to be made.
        problem: the latest error of the connection in words; "" where there was none.
    """

    def __init__(self, address: StreamAddress, environment: Mapping[str, str]) -> None:
        """Make the producer; its own threads connect it.

        Raises:
            ConfigurationError: librdkafka does not take the properties.
        """
        self.is_fatal = False
        self.problem = ""
        self._topic = address.topic
        self._failures: dict[tuple[bytes | None, bytes | None], KafkaError] = {}
        properties = _properties(address, environment)
        self._producer: Any = _made(properties | {"error_cb": self._note_error})

    def check_topic(self, seconds: float) -> str:
        """Say what is wrong with the topic; "" where nothing is."""
        return topic_problem(self._producer, self._topic, seconds)

    def send(self, message: Event, patience: float) -> bool:
        """Put a message into the queue; return False where that stays full for ``patience`` (s)."""
        until = 0.0
        while True:
            try:  # arguments by place, because names cost half a microsecond
                self._producer.produce(
                    self._topic,
                    message.value,
                    message.key,
                    _ANY_PARTITION,
                    self._note_report,
                    None,
                    _NOW,
                    message.headers,
                )
            except BufferError:
                until = until or monotonic() + patience
                if monotonic() >= until or self.is_fatal:
                    return False
                self.poll(_SLICE)
            except KafkaException as exception:  # too large, for example
                self._note_failure(error_of(exception), message.key, message.value)
                return not self.is_fatal
            else:
                return True

    def await_reports(self, patience: float) -> bool:
        """Wait until each message was reported; return False after ``patience`` (s) without any."""
        until = monotonic() + patience
        waiting = len(self._producer)
        while waiting and not self.is_fatal:
            with self._noting_errors():
                self._producer.flush(_SLICE)
            left = len(self._producer)
            if left < waiting:
                waiting, until = left, monotonic() + patience
            elif monotonic() >= until:
                return False
        return not self.is_fatal

    def take_failures(self) -> Mapping[tuple[bytes | None, bytes | None], KafkaError]:
        """Return the errors of the messages that were not taken, by key and value."""
        failures, self._failures = self._failures, {}
        return failures

    def poll(self, seconds: float = 0.0) -> None:
        """Take reports and errors that have come in, or come within some seconds."""
        with self._noting_errors():
            self._producer.poll(seconds)

    @contextlib.contextmanager
    def _noting_errors(self) -> Iterator[None]:
        """Note what the client raises: a fatal error is not given to ``error_cb``."""
        try:
            yield
        except KafkaException as exception:
            self._note_error(error_of(exception))

    def close(self) -> None:
        """Give up what was not acknowledged, and end."""
        with contextlib.suppress(KafkaException):
            self._producer.purge()
            self._producer.flush(_CLOSE_WITHIN)
        self._producer = None

    def disown(self) -> None:
        """Never end it, in a forked child: its end would wait for threads of the parent."""
        keep_for_ever(self._producer)

    # -- callbacks -------------------------------------------------------------------------------

    def _note_report(self, error: KafkaError, message: Message) -> None:
        self._note_failure(error, message.key(), message.value())

    def _note_failure(self, error: KafkaError, key: bytes | None, value: bytes | None) -> None:
        self._failures[key, value] = error
        if _is_fatal(error):
            self._note_error(error)

    def _note_error(self, error: KafkaError) -> None:
        self.problem = latest_words(error, self.problem)
        self.is_fatal |= _is_fatal(error)


def _is_fatal(error: KafkaError) -> bool:
    return error.fatal() or error.code() == KafkaError._FATAL


def check_properties(address: StreamAddress, environment: Mapping[str, str]) -> None:
    """Let librdkafka check the properties, without a connection.

    Raises:
        ConfigurationError: it does not take them.
    """
    _made(_properties(address, environment) | {"bootstrap.servers": ""})


def _properties(address: StreamAddress, environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        **_DEFAULTS,
        **client_properties(address, environment),
        **_RULES,
        "logger": _silent,
    }


def _made(properties: dict[str, Any]) -> Any:
    try:
        return Producer(properties)
    except KafkaException as exception:
        raise properties_refused(exception) from exception
