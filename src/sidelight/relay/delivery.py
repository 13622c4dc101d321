"""Delivers the batches of one worker to its sink, each record at least once.

What the sink refuses goes to the quarantine, record by record. What the sink cannot take now stays
in the spool.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from sidelight.emission import Watermark
from sidelight.exceptions import SinkInDoubtError, SinkRefusedError, SinkUnavailableError
from sidelight.host import Loop, log_warning
from sidelight.record import encode, random_bits
from sidelight.relay.refusals import (
    Delivered,
    InDoubt,
    Outcome,
    PoisonDetector,
    RefusedRecords,
    Unavailable,
    note_erased,
)
from sidelight.spool import DropsErased, Health, Record, Segment, Sink

_FIRST_BACK_OFF: Final = 0.05  # seconds; doubles with each failure …
_LONGEST_BACK_OFF: Final = 2.0  # … up to this
_JITTER: Final = 0.1  # seconds


class Stopped(Exception):  # noqa: N818  # a signal, not an error
    """The worker was told to stop while its sink was unavailable."""


class Delivery:
    """Hands records to one sink.

    Attributes:
        health: how the sink is doing.
        is_within: whether a call is inside the sink's library.
        refused: how many records of this process the sink has refused.
    """

    def __init__(
        self,
        sink: Sink,
        loop: Loop,
        watermark: Watermark | None,
        newest: Callable[[], Iterator[Record]],
        quarantine: Callable[..., None],
    ) -> None:
        """Deliver nothing yet.

        Args:
            sink: the destination.
            loop: the worker's thread, which waits between two attempts.
            watermark: is told whether the store answers; None for the other sinks.
            newest: yields records that wait as well.
            quarantine: `refusals.quarantine`, for this sink.
        """
        self.health = Health()
        self.is_within = False
        self.refused = 0
        self._sink = sink
        self._loop = loop
        self._watermark = watermark
        self._newest = newest
        self._quarantine = quarantine
        self._poison = PoisonDetector()
        # Asked once, because each time would take microseconds.
        self._dropping = sink if isinstance(sink, DropsErased) else None

    def deliver(self, records: Sequence[Record], segment: Segment, retries: int | None) -> None:
        """Deliver a batch.

        Each piece of the batch has one of three outcomes:

        - delivered: the sink took the piece.
        - unavailable: the sink took none of it. The piece is tried again after a back-off.
        - refused: the piece holds a poison record. The piece is halved until the poison record
          stands alone; then that record goes to the quarantine.

        Before a batch is halved, it is judged whether the store rejects everything. Such a store
        is in doubt.

        Args:
            records: the batch.
            segment: where it was read.
            retries: retries in a row before `SinkUnavailableError` is raised; None never raises.

        Raises:
            SinkInDoubtError: the batch stays in the spool.
            SinkUnavailableError: after the last retry.
            Stopped: the worker was told to stop.
        """
        pieces, failures, is_judged = [records], 0, self._sink.name != "store"
        while pieces:
            piece = pieces.pop()
            outcome = self.attempt(piece, segment.meta)
            if isinstance(outcome, RefusedRecords) and outcome.poison is None and not is_judged:
                outcome = self._judge(piece, outcome, segment)
                is_judged = isinstance(outcome, RefusedRecords)

            match outcome:
                case Delivered():
                    failures = 0
                case Unavailable(problem):
                    if failures == retries:
                        raise SinkUnavailableError(sink=self._sink.name, problem=problem)
                    pieces.append(piece)
                    self._back_off(failures)
                    failures += 1
                case InDoubt(problem):
                    raise SinkInDoubtError(sink=self._sink.name, problem=problem)
                case RefusedRecords(problem, poison, reason) if (
                    poison is not None or len(piece) == 1
                ):
                    self._refuse(segment, poison or piece, problem, reason)
                case RefusedRecords():
                    middle = len(piece) // 2
                    pieces += piece[middle:], piece[:middle]
        self.health.delivered += len(records)
        self.health.events += sum(static.type is not None for static, _ in records)

    def attempt(self, records: Sequence[Record], writer: dict[str, Any]) -> Outcome:
        """Hand records to the sink once, and note whether the sink is available.

        Args:
            records: none opens the sink.
            writer: describes the process that wrote them: the header of its segments.

        Raises:
            Stopped: the sink is unavailable, and the worker was told to stop.
        """
        self.is_within = True
        outcome: Delivered | RefusedRecords = Delivered()
        try:
            self._sink.write(records, writer)
        except SinkUnavailableError as error:
            return self._unavailable(error)
        except SinkRefusedError as error:
            facts: Any = error.facts
            outcome = RefusedRecords(
                str(facts["problem"]), facts.get("records"), facts.get("reason")
            )
            if outcome.poison is None:
                return outcome
        except MemoryError:  # the records are not the cause
            with contextlib.suppress(Exception):  # the sink may be in any state
                self._sink.close()
            problem = "no memory is left"
            return self._unavailable(SinkUnavailableError(sink=self._sink.name, problem=problem))
        except Exception as error:  # noqa: BLE001  # a library that cannot take some value
            return RefusedRecords(repr(error), None)
        finally:
            self.is_within = False
        if self._dropping is not None:
            note_erased(self._dropping, self._watermark)
        self.health.recover()
        self._tell_receipts(available=True)
        self._poison.note_delivery(_taken(records, outcome))
        return outcome

    def note_failure(self, error: Exception) -> None:
        """Note that the sink takes nothing at the moment."""
        self._tell_receipts(available=False)
        if self.health.fail(str(error)):
            log_warning("sidelight: %s; its records wait in the spool", error)

    def take_refused(self) -> int:
        """Return how many records of this process were refused since the last call."""
        refused, self.refused = self.refused, 0
        return refused

    def _judge(
        self, records: Sequence[Record], refusal: RefusedRecords, segment: Segment
    ) -> Outcome:
        """Judge whether the records or the store is the cause of a refusal."""
        outcome = self._poison.judge(
            records, refusal, self._newest(), lambda some: self.attempt(some, segment.meta)
        )
        if isinstance(outcome, InDoubt):
            self._unavailable(SinkInDoubtError(sink=self._sink.name, problem=outcome.problem))
        return outcome

    def _unavailable(self, error: SinkUnavailableError) -> Unavailable:
        """Note that the sink is unavailable; a worker that is told to stop tries no more."""
        self.note_failure(error)
        if self._loop.halting:
            raise Stopped
        return Unavailable(str(error.facts["problem"]))

    def _tell_receipts(self, *, available: bool) -> None:
        """Tell receipts whether a wait for the store is worthwhile."""
        if self._watermark is not None:
            self._watermark.store_answers = available and not self._loop.halting

    def _back_off(self, failures: int) -> None:
        """Pause before the next attempt: exponential, with jitter."""
        seconds = min(_LONGEST_BACK_OFF, _FIRST_BACK_OFF * 2 ** min(failures, 10))
        self._loop.rest(seconds + _JITTER * random_bits(32) / 2**32)

    def _refuse(
        self, segment: Segment, records: Sequence[Record], problem: str, reason: str | None
    ) -> None:
        """Move poison records to the quarantine."""
        for record in records:
            if reason is None:
                self._poison.note_poison(record)
            if segment.number and record[0].outcome != "ledger":  # this process has emitted it
                self.refused += 1
                if self._watermark is not None:
                    self._watermark.note_refused(record[1].random)
            why = reason or f"refused by {self._sink.name}"
            self._quarantine(segment, why, problem, encode(record), refused=True)


def _taken(records: Sequence[Record], outcome: Delivered | RefusedRecords) -> Sequence[Record]:
    """Return the records that a sink took, which has named those that it refused."""
    if isinstance(outcome, Delivered):
        return records
    refused = {moment.random for _, moment in outcome.poison or ()}
    return [record for record in records if record[1].random not in refused]
