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
from functools import partial
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from sidelight.exceptions import SinkUnavailableError
from sidelight.host import monotonic
from sidelight.spool import Health, Record
from sidelight.store import StoreSink
from sidelight.stream.batches import Batch, BatchReader, SetAside
from sidelight.stream.connection import StreamAddress, client_properties
from sidelight.stream.lag import ends_of, lag_of, reached_of
from sidelight.stream.notes import HeldNotes
from sidelight.stream.problems import error_of, latest_words, properties_refused
from sidelight.stream.reading import Sourced, Told

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


@dataclass(slots=True)
class Progress:
    """What a consumer has done.

    Attributes:
        stored: events that were written to the store, those among them that it had included.
        set_aside: messages that have no place in the store.
        pruned: events that were pruned from the store before, and stay away.
        erased: events that were erased from the store before, and stay away.
        lag: messages that the group has not stored, by partition, at the last look.
        store: how the store is doing.
        stream: how the brokers are doing.
    """

    stored: int = 0
    set_aside: int = 0
    pruned: int = 0
    erased: int = 0
    lag: Mapping[int, int] = field(default_factory=dict)
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
        store: StoreSink,
        set_aside: Callable[[SetAside], None],
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
        self._notes = HeldNotes()
        self._next: dict[int, int] = {}  # offsets to be committed, by partition
        properties = {**_DEFAULTS, **client_properties(address, environment), **_RULES}
        try:
            self._consumer = Consumer(
                {**properties, "group.id": group, "error_cb": self._note_error}
            )
            # It has connections of its own. A broker answers the requests of a connection in their
            # order, and a fetch waits for new messages.
            self._asking = Consumer({**properties, "group.id": group})
        except KafkaException as exception:
            raise properties_refused(exception) from exception
        self._consumer.subscribe([self._topic])
        self._reader = BatchReader(self._consumer)

    def step(self, halting: Callable[[], bool]) -> int:
        """Take one batch to the store, and return how many messages it had.

        ``halting`` tells whether to give up a batch that the store does not take. The messages are
        read again then, by this group's next consumer.
        """
        batch = self._reader.next()
        for error in batch.errors:
            self._note_error(error)
        for message in batch.unreadable:
            self.progress.set_aside += 1
            self._set_aside(message)
        for note in batch.notes:
            self._notes.hold(*note)
        if not batch.messages:
            if self._store.has_deferred_work:
                self._write([], halting)
        else:
            self.progress.stream.recover()
            if not self._store_batch(batch, halting):
                return batch.messages
            self._next |= batch.ends
            self._commit()
        if self._notes.asks(now=not batch.messages):
            self._store_notes(halting)
        return batch.messages

    def ends(self) -> dict[int, int]:
        """Return the offset behind the last message of each partition, now: see `ends_of`."""
        return ends_of(self._asking, self._topic)

    def lag(self, ends: Mapping[int, int]) -> dict[int, int]:
        """Return how far the group is behind ``ends``, by partition: see `lag_of`."""
        return lag_of(self._asking, self._topic, ends)

    def has_reached(self, ends: Mapping[int, int]) -> bool:
        """Return whether the group has stored all before ``ends``, and this consumer the notes.

        Raises:
            SinkUnavailableError: the brokers do not answer.
        """
        first = self._notes.first_offsets()
        is_noted = all(offset >= ends.get(number, 0) for number, offset in first.items())
        return is_noted and not any(self.lag(ends).values())

    def look_at_lag(self) -> None:
        """Note in the progress how far the group is behind.

        Raises:
            SinkUnavailableError: the brokers do not answer.
        """
        self.progress.lag = self.lag(self.ends())

    def close(self) -> None:
        """Leave the group, so that its partitions go to the other consumers at once."""
        self._reader.close()
        self._consumer.close()
        self._asking.close()

    # -- one batch ---------------------------------------------------------------------------

    def _store_batch(self, batch: Batch, halting: Callable[[], bool]) -> bool:
        """Store the records of a batch; return False where the store did not take them."""
        pieces = deque([range(len(batch.records))] if batch.records else [])
        while pieces:
            piece = pieces.popleft()
            records = batch.records[piece.start : piece.stop]
            refusal = self._write(records, halting)
            if refusal is None:
                return False
            problem, poison, reason = refusal
            if not problem:
                self._refused_in_a_row = 0
                self._count_stored(records)
            elif poison is None and len(piece) > 1:
                middle = len(piece) // 2
                pieces.extendleft([piece[middle:], piece[:middle]])
            else:
                named = {id(moment) for _, moment in poison or [record for record, _ in records]}
                self._count_stored([each for each in records if id(each[0][1]) not in named])
                for place in piece:
                    if id(batch.records[place][0][1]) in named:
                        self._refuse(*batch.records[place], batch.places[place], problem, reason)
        return True

    def _count_stored(self, records: Iterable[Sourced]) -> None:
        erased, self._store.erased = len(self._store.erased), []
        self.progress.erased += erased
        events = sum(record[0].type is not None for record, _ in records)
        self.progress.stored += events - erased

    def _refuse(
        self,
        record: Record,
        writer: Mapping[str, Any],
        place: tuple[int, int],
        problem: str,
        reason: str | None,
    ) -> None:
        if reason == _PRUNED:
            self.progress.pruned += 1
            return
        self._refused_in_a_row += 1
        self.progress.set_aside += 1
        service = str(writer["resource"].get("service.name", ""))
        self._set_aside(SetAside(*place, service, record, reason or "refused by store", problem))

    def _refuse_note(self, note: Told, place: tuple[int, int], problem: str) -> None:
        self.progress.set_aside += 1
        service = str(note.writer["resource"].get("service.name", ""))
        content = note.sign or {"process": dict(note.writer), "at": note.at, "state": note.state}
        self._set_aside(SetAside(*place, service, content, "refused by store", problem))

    def _write(
        self, records: Sequence[Sourced], halting: Callable[[], bool]
    ) -> tuple[str, Sequence[Record] | None, str | None] | None:
        """Write until the store takes or refuses the records; None where it is given up.

        Returns:
            The problem, "" where there is none; the refused records, where the store names them;
            the reason, where it has one.
        """
        return self._persist(
            lambda: self._store.write_of_many(records), halting, is_one=len(records) < 2
        )

    def _persist(
        self, write: Callable[[], None], halting: Callable[[], bool], *, is_one: bool = True
    ) -> tuple[str, Sequence[Record] | None, str | None] | None:
        failures = 0
        while True:
            try:
                write()
                self._store.sync()
            except (SinkUnavailableError, OSError) as error:
                self.progress.store.fail(str(error))
            except Exception as error:  # noqa: BLE001  # or what no check has foreseen
                facts: Any = getattr(error, "facts", {})
                problem, reason = str(facts.get("problem", repr(error))), facts.get("reason")
                if reason is not None or self._refused_in_a_row < _DOUBTFUL or not is_one:
                    return problem, facts.get("records"), reason
                self.progress.store.fail(f"it refuses every event: {problem}")
            else:
                self.progress.store.recover()
                return "", None, None
            if halting():
                return None
            self._hold(min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2 ** min(failures, 10)))
            failures += 1

    def _hold(self, seconds: float) -> None:
        """Wait, and stay in the group: a consumer that does not poll would be removed from it."""
        self._reader.settle()
        until = monotonic() + seconds * random.uniform(0.8, 1.2)  # noqa: S311
        try:
            while (left := until - monotonic()) > 0:
                self._consumer.pause(self._consumer.assignment())
                early: Any = self._consumer.poll(left)
                if early is not None and early.error() is None:  # of a new partition
                    self._consumer.seek(
                        TopicPartition(self._topic, early.partition(), early.offset())
                    )
            self._consumer.resume(self._consumer.assignment())
        except KafkaException as exception:
            self._note_error(error_of(exception))

    def _commit(self) -> None:
        """Commit the offsets of the partitions that this consumer still has."""
        held: Mapping[int, int] = {}
        try:
            mine = {each.partition for each in self._consumer.assignment()}
            self._notes.forget_others(mine)
            held = self._notes.first_offsets()
            offsets = [
                TopicPartition(self._topic, number, min(held.get(number, end), end), f"{end}")
                for number, end in self._next.items()
                if number in mine
            ]
            if offsets:
                self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as exception:  # another consumer reads them again
            self._note_error(error_of(exception))
        self._next = {number: self._next[number] for number in held if number in self._next}

    def _store_notes(self, halting: Callable[[], bool]) -> None:
        """Store the notes before which everything is stored."""
        try:
            ends = self.ends()
            self._notes.note_ends(ends)
            due = self._notes.due(reached_of(self._asking, self._topic, ends))
        except SinkUnavailableError as error:
            self.progress.stream.fail(str(error.facts["problem"]))
            return
        for note, partition, offset in due:
            outcome = self._persist(partial(self._store_note, note), halting)
            if outcome is None:
                return
            if problem := outcome[0]:
                self._refuse_note(note, (partition, offset), problem)
            self._notes.forget(note)
        if due:
            self._commit()

    def _store_note(self, note: Told) -> None:
        writer = dict(note.writer)
        if note.sign is not None:
            self._store.write([note.sign], writer)
        elif note.is_end:
            self._store.note_end(writer)
        else:
            self._store.note_alive(writer, note.at)

    def _note_error(self, error: Any) -> None:
        health = self.progress.stream
        health.fail(latest_words(error, "" if health.failing_since is None else health.problem))
