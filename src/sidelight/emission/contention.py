"""Whether a thread that waits would get the GIL, or the processor, back too late.

A wait gives the GIL away. Beside K threads that compute, the waiting thread gets the GIL back only
after K switch intervals (5 ms each). Beside threads that compute without the GIL (hashing, a
library in C), the waiting thread gets it back at once.

The relay looks at the CPU clocks of the process from time to time. Before a wait the caller
compares the clocks with those looks. Its own computing and that of the relay do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from sidelight.host import perf_counter_ns, process_time_ns, read_cpu_clock, thread_cpu_clock

IDLE: Final = 0.05
"""Seconds between two looks at a quiet process."""
PROBE: Final = 0.001
"""Seconds of a probe: a pause after which the relay sees whether it gets the GIL back at once."""
HELD: Final = 0.02
"""Seconds between two looks while no wait may begin."""
_MS: Final = 1_000_000  # ns
_LATE: Final = 3 * _MS  # a wake-up that is later than this had to wait for the GIL or the processor
_HOLD: Final = 80 * _MS  # after a wake-up or a wait that came late, no wait begins
_PROBES: Final = 3  # probes in time, before a load counts as one that does not hold the GIL
_APART: Final = 10 * _MS  # between two looks that are kept
_WINDOW: Final = 15 * _MS  # a caller compares with a look that is at least so old
_LEAST: Final = _MS // 2  # so little computing is no load
_SHARE: Final = 8  # a load takes more than an eighth of the time …
_LONGEST: Final = 40 * _MS  # … or of so much time, where the last look is longer ago
_MOST_CALLERS: Final = 64
_SHARED_FOR: Final = 60_000 * _MS


class _Look(NamedTuple):
    """The clocks at one moment (ns): the wall's, the process's CPU, and that of known threads."""

    wall: int
    process: int
    threads: dict[int, int]

    def used_since(self, before: _Look, clocks: Iterable[int]) -> int:
        """Return the CPU time of threads that both looks know."""
        known = [each for each in clocks if each in self.threads and each in before.threads]
        return sum(self.threads[each] - before.threads[each] for each in known)


class Contention:
    """What the relay has seen of the process's load, and the question that a caller asks.

    Attributes:
        is_high: whether the last look found a load that holds the GIL.
        relay_clocks: gives the CPU clocks of the relay's threads.
    """

    def __init__(self) -> None:
        self.is_high = False
        self.relay_clocks: Callable[[], Iterable[int]] = tuple
        self._callers: dict[int, None] = {thread_cpu_clock(): None}  # by CPU clock, the latest last
        self._looks: tuple[_Look, _Look] | None = None  # the older first
        self._probes_in_time = 0  # one after the other
        self._is_probing = False
        self._held_until = 0
        self._shared_until: dict[int, int] = {}  # by the CPU clock of an event loop's thread

    # -- the relay's side --------------------------------------------------------------------

    def look(self, late: int) -> float:
        """Look at the clocks; the relay calls this after each pause.

        Args:
            late: how much later than it should the relay has woken up (ns).

        Returns:
            The longest time until the next look (s).
        """
        now, is_late = perf_counter_ns(), late > _LATE
        if self._looks is None:
            first = self._look(now)
            self._looks = first, first
            return IDLE
        newest = self._looks[1]
        if now - newest.wall < _APART and not (is_late or self._is_probing):
            return IDLE
        look = self._look(now)
        if is_late and 2 * look.used_since(newest, (*self._callers,)) < late:
            self._held_until = now + _HOLD
        is_load = _is_load(self._of_others(newest, look), now - newest.wall)
        if is_load:
            self._probes_in_time = 0 if is_late else self._probes_in_time + self._is_probing
        elif not self._is_probing:
            self._probes_in_time = 0
        self.is_high = is_load and not self._gives_way
        if now - newest.wall >= _APART:
            self._looks = newest, look
        self._is_probing = is_load and not self._is_probing
        if self._is_probing:
            return PROBE
        return HELD if now < self._held_until else IDLE

    def _look(self, now: int) -> _Look:
        clocks = (*self.relay_clocks(), *self._callers)
        return _Look(now, process_time_ns(), {each: read_cpu_clock(each) for each in clocks})

    @property
    def _gives_way(self) -> bool:
        """Whether probes have shown that the load does not hold the GIL."""
        return self._probes_in_time >= _PROBES

    # -- the caller's side -------------------------------------------------------------------

    def delays_a_wait(self, *, in_a_loop: bool) -> bool:
        """Return whether a wait of this thread would probably end late; costs about a microsecond.

        Args:
            in_a_loop: the wait lets the other tasks of an event loop run.
        """
        me, now, process = thread_cpu_clock(), perf_counter_ns(), process_time_ns()
        if me not in self._callers:
            self._register(me)
        if now < self._held_until:
            return True
        is_shared = in_a_loop and now < self._shared_until.get(me, 0)
        if self._looks is None or (self._gives_way and not is_shared):
            return False
        older, newer = self._looks
        compared = (newer,) if now - newer.wall > _WINDOW else (newer, older)
        look: _Look | None = None
        for before in compared:
            wall = now - before.wall
            if _is_load(process - before.process, wall):
                look = look or self._look(now)
                if _is_load(self._of_others(before, look, None if is_shared else me), wall):
                    return True
        return False

    def note_late(self, *, in_a_loop: bool) -> None:
        """Note that a wait of this thread ended late: for a while no wait begins."""
        now = perf_counter_ns()
        self._held_until = now + _HOLD
        if in_a_loop:  # other tasks may be the cause
            self._shared_until[thread_cpu_clock()] = now + _SHARED_FOR

    def _register(self, clock: int) -> None:
        self._callers[clock] = None
        for gone in [*self._callers.copy()][:-_MOST_CALLERS]:  # other threads register as well
            self._callers.pop(gone, None)
            self._shared_until.pop(gone, None)

    def _of_others(self, before: _Look, now: _Look, caller: int | None = None) -> int:
        """Return the CPU time between two looks that neither the relay nor the caller has used."""
        used = now.used_since(before, self.relay_clocks())
        if caller is not None and caller in before.threads:
            used += now.used_since(before, (caller,))
        elif caller is not None and now.threads[caller] < _LONGEST:  # a young thread
            used += min(now.threads[caller], now.wall - before.wall)
        return now.process - before.process - used


def _is_load(computed: int, wall: int) -> bool:
    return computed > _LEAST and computed * _SHARE > min(wall, _LONGEST)
