"""Tells records that the store refuses from a store that refuses whatever it is given.

Only the former are to be set aside. A store with a rule that nothing meets (a trigger that forbids
every INSERT for a while, a new constraint, a value that no release of it takes) would have them all
set aside, and soon lost, for the quarantine is bounded; in the spool they can wait.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from sidelight.exceptions import SinkRefusedError
from sidelight.sink import Record

Take: TypeAlias = Callable[[Sequence[Record]], None]
"""Delivers records, all or none.

Raises:
    SinkRefusedError: the sink would not take one of them.
"""

DOUBTFUL: Final = 20
"""Events that may be refused one after the other before it is the store that is in doubt."""
_TRIED: Final = 100
"""Events of a batch that are tried one by one, to see whether the store takes any."""


class Sieve:
    """What a worker knows of the records that its sink refuses."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._random = random.Random()  # noqa: S311  # the application's own sequence is left alone

    def took(self, records: Sequence[Record]) -> None:
        """The sink has taken something; only events tell that it takes events."""
        if any(static.type is not None for static, _ in records):
            self._in_a_row = 0

    def blames(self, records: Sequence[Record], take: Take) -> bool:
        """Whether records are to blame for the refusal of their batch, and not the store.

        They are where the store takes others of the batch; and where the batch has none, as long as
        it has taken something not long ago.

        Args:
            records: the batch.
            take: tried with some of them.
        """
        events = [record for record in records if record[0].type is not None]
        for event in self._random.sample(events, min(len(events), _TRIED)):
            try:
                take([event])
            except SinkRefusedError:
                continue
            return True
        return self._in_a_row + len(events) <= DOUBTFUL

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
