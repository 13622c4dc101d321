"""Refusals: distinguish poison records from a store that rejects everything; quarantine the former.

A poison record goes to the quarantine, so that the records behind it are delivered. But a store
may reject every event for a while: a trigger that forbids INSERT, a new constraint. Then the
quarantine, which is limited, would fill up and later records would be lost. So these records wait
in the spool.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

from sidelight.emission import Watermark
from sidelight.record import decode, random_bits
from sidelight.spool import DropsErased, Entry, Record, Scanner, Segment, Spool

DOUBTFUL: Final = 20
"""Events that a store may refuse in a row before the store itself is in doubt."""
_SAMPLE: Final = 100
"""Events that are tried one by one, to see whether the store takes any."""


class Delivered(NamedTuple):
    """The sink took the records."""


class Unavailable(NamedTuple):
    """The sink took none of the records; the same records may be tried again."""

    problem: str


class InDoubt(NamedTuple):
    """The store rejects everything; the records wait in the spool."""

    problem: str


class RefusedRecords(NamedTuple):
    """At least one of the records is poison; ``poison`` where the sink knows which."""

    problem: str
    poison: Sequence[Record] | None
    reason: str | None = None


# No outcome holds an exception: its traceback would keep the worker's segment open.
Outcome: TypeAlias = Delivered | Unavailable | InDoubt | RefusedRecords


class PoisonDetector:
    """A store's refusals, as the worker remembers them."""

    def __init__(self) -> None:
        self._refused_in_a_row = 0
        self._deliveries = 0
        self._doubted: dict[int, int] = {}  # the first event of a batch: deliveries at that time

    def note_delivery(self, records: Sequence[Record]) -> None:
        """Note that the store took records; only events tell that it takes events."""
        if _events(records):
            self._refused_in_a_row = 0
            self._deliveries += 1

    def note_poison(self, record: Record) -> None:
        """Note that a record goes to the quarantine."""
        self._refused_in_a_row += record[0].type is not None

    def judge(
        self,
        records: Sequence[Record],
        refusal: RefusedRecords,
        others: Iterable[Record],
        attempt: Callable[[Sequence[Record]], Outcome],
    ) -> Outcome:
        """Decide whether the records or the store is the cause of a refusal.

        The records are the cause where the store takes other events, of the batch or not, or has
        taken some since the batch was last judged. Where there are no other events, the records
        are the cause as long as few events were refused in a row.

        Args:
            records: the batch that was refused.
            refusal: the store's answer.
            others: records that wait as well.
            attempt: hands records to the store.

        Returns:
            ``refusal``, or that the store is in doubt, or was unavailable for an attempt.
        """
        events = _events(records)
        first = events[0][1].random if events else 0
        if self._doubted.get(first, self._deliveries) < self._deliveries:
            del self._doubted[first]
            return refusal
        for event in (*_sample(events), *_sample(_events(others))):
            outcome = attempt([event])
            if isinstance(outcome, Delivered):
                return refusal
            if isinstance(outcome, Unavailable):
                return outcome
        if self._refused_in_a_row + len(events) <= DOUBTFUL:
            return refusal
        self._doubted[first] = self._deliveries
        return InDoubt(refusal.problem)


def _sample(events: Sequence[Record]) -> Sequence[Record]:
    return sorted(events, key=lambda _: random_bits(64))[:_SAMPLE]


def _events(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record[0].type is not None]


def newest_records(segments: Iterable[Segment], sink: str) -> Iterator[Record]:
    """Yield some records of the last segment that a sink has not taken, as far as readable."""
    for segment in tuple(segments)[-1:]:
        with contextlib.suppress(OSError):
            for payload in Scanner(segment, segment.cursors[sink]).batch(_SAMPLE).payloads:
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                    yield decode(payload)


def note_erased(sink: DropsErased, watermark: Watermark | None) -> None:
    """Let no receipt say that an event is stored which the store has dropped as erased."""
    if watermark is not None:
        for bits in sink.erased:
            watermark.note_refused(bits)
    sink.erased.clear()


def quarantine(
    spool: Spool,
    sink: str,
    count: Callable[[str, str], object],
    segment: Segment,
    reason: str,
    problem: str,
    payload: bytes,
    *,
    refused: bool = False,
    offset: int | None = None,
) -> None:
    """Keep what a sink cannot get in the quarantine, and count it once for all sinks.

    Args:
        spool: has the quarantine.
        sink: name of the sink that lacks it.
        count: counts a loss by reason.
        segment: where it was.
        reason: the loss reason.
        problem: the cause in words.
        payload: a record, or a damaged stretch.
        refused: the sink refused the record; else no sink can read it.
        offset: the offset of a stretch.
    """
    entry = Entry(
        kind="record" if offset is None else "stretch",
        reason=reason,
        problem=problem,
        refused_by=sink if refused else None,
        sinks=(sink,),
        at=time.time_ns(),
        writer=segment.meta,
        segment="" if segment.path is None else segment.path.stem,
        offset=offset,
        payload=payload,
    )
    keep_entry(spool, count, entry)


def keep_entry(spool: Spool, count: Callable[[str, str], object], entry: Entry) -> None:
    """Keep an entry in the quarantine, and count it where it is new."""
    reason, problem = entry.reason, entry.problem
    try:
        if spool.quarantine.keep(entry):  # else another sink's worker has counted it
            count(reason, problem)
    except OSError as error:
        if entry.is_refused_ledger:  # a count makes another ledger, which would be refused as well
            if entry.name in spool.quarantine.unkept:
                return
            spool.quarantine.unkept.add(entry.name)
        count(reason, problem)
        count("not kept in quarantine", f"{reason}: {error.strerror}")
