"""Tells records that the store refuses from a store that refuses whatever it is given.

Only the former are to be set aside. A store with a rule that nothing meets (a trigger that forbids
every INSERT for a while, a new constraint, a value that no release of it takes) would have them all
set aside, and soon lost, for the quarantine is bounded; in the spool they can wait.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from sidelight.exceptions import SinkInDoubtError, SinkRefusedError, SinkUnavailableError
from sidelight.record import decode
from sidelight.spool import Record, Scanner, Segment

Take: TypeAlias = Callable[[Sequence[Record]], None]
"""Delivers records, all or none.

Raises:
    SinkRefusedError: the sink would not take one of them.
"""

DOUBTFUL: Final = 20
"""Events that may be refused one after the other before it is the store that is in doubt."""
_TRIED: Final = 100
"""Events of a batch that are tried one by one, to see whether the store takes any."""


def may_be_over(error: BaseException) -> bool:
    """Whether the same records may be taken when they are tried again, without others."""
    return isinstance(error, SinkUnavailableError) and not isinstance(error, SinkInDoubtError)


class Sieve:
    """What a worker knows of the records that its sink refuses."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._taken = 0
        self._doubted: dict[int, int] = {}
        self._random = random.Random()  # noqa: S311  # the application's own sequence is left alone

    def took(self, records: Sequence[Record]) -> None:
        """The sink has taken something; only events tell that it takes events."""
        if any(static.type is not None for static, _ in records):
            self._in_a_row = 0
            self._taken += 1

    def blames(self, records: Sequence[Record], others: Iterable[Record], take: Take) -> bool:
        """Whether records are to blame for the refusal of their batch, and not the store.

        They are where the store takes other events, of the batch or not, or has done so since the
        batch was last looked at; and where there are none, as long as only few were refused since.

        Args:
            records: the batch.
            others: that wait as well.
            take: tried with some of them.
        """
        events = [record for record in records if record[0].type is not None]
        first = events[0][1].random if events else 0
        if self._doubted.get(first, self._taken) < self._taken:
            del self._doubted[first]
            return True
        more = [record for record in others if record[0].type is not None]
        for event in (*self._some(events), *self._some(more)):
            try:
                take([event])
            except SinkRefusedError:
                continue
            return True
        if self._in_a_row + len(events) <= DOUBTFUL:
            return True
        self._doubted[first] = self._taken
        return False

    def _some(self, events: Sequence[Record]) -> Sequence[Record]:
        return self._random.sample(events, min(len(events), _TRIED))

    def refused(
        self, records: Sequence[Record], take: Take, error: SinkRefusedError
    ) -> Iterator[tuple[Record, SinkRefusedError]]:
        """Find the records that the sink refuses, and why; it takes all the others."""
        if (found := error.facts.get("records")) is not None:  # it has found them by itself
            yield from ((record, error) for record in found)  # type: ignore[attr-defined]
            return
        if len(records) == 1:
            self._in_a_row += records[0][0].type is not None
            yield records[0], error
            return
        middle = len(records) // 2
        for half in (records[:middle], records[middle:]):
            try:
                take(half)
            except SinkRefusedError as refused:
                yield from self.refused(half, take, refused)


def newest_of(segments: Iterable[Segment], sink: str) -> Iterator[Record]:
    """Some of the records that a sink has not taken of the last segment, if they can be read."""
    for segment in tuple(segments)[-1:]:
        with contextlib.suppress(OSError):
            for payload in Scanner(segment, segment.cursors[sink]).batch(_TRIED).payloads:
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                    yield decode(payload)
