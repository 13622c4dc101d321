"""Hold what messages tell of processes, until all that was sent before them is stored.

A topic has an order in each partition only. The sign of life of a process may be read before its
events, which other consumers read from other partitions. The store must not learn that it has
everything until that is so. Therefore a note is held until the group has stored all that the topic
held when the note was read.

A note that is held is not lost with its consumer: the offset that is committed stays in front of
it, and the metadata of the offset says how far the events are stored. The next consumer reads the
partition again from there. The store has these events, and ignores them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from sidelight.host import monotonic
from sidelight.stream.reading import Told

_LOOK_EVERY: Final = 1.0  # seconds between two questions to the brokers


@dataclass(slots=True)
class _Held:
    """A note, where it was read, and what has to be stored before it.

    Attributes:
        ends: the end of each partition after the note was read; None where it is not known yet.
    """

    note: Told
    partition: int
    offset: int
    ends: Mapping[int, int] | None = None

    def is_due(self, reached: Mapping[int, int]) -> bool:
        """Return whether all that was sent before it is stored."""
        ends = self.ends
        return ends is not None and all(reached.get(each, 0) >= ends[each] for each in ends)


class HeldNotes:
    """The notes of one consumer that are not stored yet.

    Of each process the oldest sign of life is held, the newest, and its end, because a sign says
    all that an older one says. So the memory is bounded by the number of processes.
    """

    def __init__(self) -> None:
        self._held: dict[object, list[_Held]] = {}  # by process, in the order of reading
        self._looked_at = -_LOOK_EVERY

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._held)

    def hold(self, note: Told, partition: int, offset: int) -> None:
        """Hold a note that was read at a place of the topic."""
        mine = self._held.setdefault(note.writer.get("instance"), [])
        if len(mine) > 1 and not (note.is_end or mine[-1].note.is_end):
            mine.pop()
        mine.append(_Held(note, partition, offset))

    def asks(self, *, now: bool = False) -> bool:
        """Return whether to ask the brokers: at most once a second, unless ``now``."""
        if not self._held or not (now or monotonic() - self._looked_at >= _LOOK_EVERY):
            return False
        self._looked_at = monotonic()
        return True

    def note_ends(self, ends: Mapping[int, int]) -> None:
        """Note the ends of all partitions, asked after the held notes were read."""
        for mine in self._held.values():
            for each in mine:
                if each.ends is None:
                    each.ends = ends

    def due(self, reached: Mapping[int, int]) -> list[tuple[Told, int, int]]:
        """Return the notes before which the group has stored everything, with their places.

        Args:
            reached: how far the group has stored each partition.
        """
        held = (each for mine in self._held.values() for each in mine)
        return [(each.note, each.partition, each.offset) for each in held if each.is_due(reached)]

    def forget(self, note: Told) -> None:
        """Forget a note that is stored."""
        self._keep(lambda each: each.note is not note)

    def first_offsets(self) -> dict[int, int]:
        """Return the offset of the first note that is held, by partition."""
        first: dict[int, int] = {}
        for mine in self._held.values():
            for each in mine:
                first[each.partition] = min(each.offset, first.get(each.partition, each.offset))
        return first

    def forget_others(self, partitions: Collection[int]) -> None:
        """Forget the notes of partitions that another consumer reads now."""
        self._keep(lambda each: each.partition in partitions)

    def _keep(self, wanted: Callable[[_Held], bool]) -> None:
        kept = {process: [*filter(wanted, mine)] for process, mine in self._held.items()}
        self._held = {process: mine for process, mine in kept.items() if mine}
