"""The spool: a directory of segments into which the callers copy and out of which the relay reads.

The caller's path is ``spool.write(frame)``, and ``write`` *is* the C method of the current
segment's mapping. Only where that raises (the segment is full) is anything decided here: the next
segment, allocated ahead of need by the relay, takes its place. Nothing here waits for a lock, so
that a signal handler may emit in the middle of a rotation.

Where the disk has no room, or cannot be written, the next segment is kept in memory, which is
counted. It moves to the disk when that can be written again.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from sidelight.exceptions import SpoolError
from sidelight.host import allocate_lock
from sidelight.spool.adoption import Adopted
from sidelight.spool.directory import Names, prepare_directory
from sidelight.spool.disk import DISK, Disk
from sidelight.spool.failures import Troubles
from sidelight.spool.header import PAGE, fitted
from sidelight.spool.quarantine import DIRECTORY as QUARANTINE
from sidelight.spool.quarantine import Quarantine
from sidelight.spool.segment import SMALL, Segment
from sidelight.spool.supply import Supply

Position: TypeAlias = tuple[int, int]
"""A place in this process's own part of the spool: number of the segment, offset in it."""

logger: Final = logging.getLogger("sidelight")


class Spool:
    """This process's part of a spool directory.

    Attributes:
        write: copies one frame in; raises ValueError where `append` must help. Looked up anew for
            each emission, because it changes with the segment.
        directory: where the segments lie; None keeps them in memory (nothing survives then).
        names: of the segments, which must survive a power loss as they do.
        supply: where the next segment comes from, and how much the directory may hold.
        quarantine: where what cannot be delivered is set aside.
        count: told what goes wrong, by reason.
        settle: makes what the sinks have taken survive a power loss, and answers whether it would;
            segments are deleted after that.
    """

    def __init__(
        self,
        directory: Path | None,
        meta: Mapping[str, Any],
        *,
        limit: int = 1024 * 1024 * 1024,
        count: Callable[[str, str], object] = lambda _reason, _problem: None,
        disk: Disk = DISK,
        first: Segment | None = None,
    ) -> None:
        self.directory = directory
        self.quarantine = Quarantine(directory)
        self.meta, left_out = fitted(meta)
        self.names = Names(directory, disk)
        self.supply = Supply(directory, self.meta, limit, count, disk, self.names)
        self.count = count
        self.troubles = Troubles(count)
        self.disk = disk
        self.on_rotation: Callable[[], object] = lambda: None
        self.on_refusal: Callable[[], object] = lambda: None
        self.settle: Callable[[], bool] = lambda: True
        self.own: deque[Segment] = deque()
        store = self.meta.get("store")
        self.adopted = Adopted(directory, store, self.supply, self.names, count, disk)
        self.write: Callable[[bytes], int]
        self._hands_over = self.meta.get("relay") == "external"
        self._handing_over = allocate_lock()
        self._successors: dict[int, tuple[Segment, Iterator[Segment]]] = {}
        first = self.supply.first(first)
        first.number = 1
        self._install(first)
        self.own.append(first)
        if left_out:
            self.count("resource attributes too large", ", ".join(left_out))

    # -- the caller's side -------------------------------------------------------------------

    def append(self, frame: bytes) -> None:
        """Copy one frame in where `write` could not: rotate, then write.

        Raises:
            SpoolError: there is no room, on disk or within the limit.
        """
        for _ in range(8):  # each turn installs a fresh segment: others can only fill so many
            segment = self._current
            try:
                segment.write(frame)
            except ValueError:
                self.rotate(segment)
            else:
                return
        raise self.supply.error("its segments fill faster than they can be replaced")

    def append_last(self, frame: bytes) -> None:
        """Copy one frame in, if need be a little beyond the limit: it says what was lost.

        Raises:
            SpoolError, OSError: there is no room on disk or in memory.
        """
        try:
            self.append(frame)
        except SpoolError:
            self.supply.spares.append(self.supply.create(SMALL))
            self.append(frame)

    def position(self) -> Position:
        """A place behind everything that this thread has written so far."""
        newest = self.own[-1]
        return newest.number, newest.tell()

    def rotate(self, segment: Segment) -> None:
        """Put the next segment in the place of ``segment``; of several threads, one wins.

        A segment is sealed, and may be deleted, once it has a successor: until then it stays.

        Raises:
            SpoolError: there is no room for another.
        """
        newest = self.own[-1]
        if newest.number > segment.number:
            segment.seal()
            self._install(newest)
            return
        try:
            spare = self.supply.take(self.own)
        except SpoolError:
            self.on_refusal()  # the relay may have something to let go
            raise
        spare.number = segment.number + 1
        winner, once = self._successors.setdefault(segment.number, (spare, iter((spare,))))
        # Whoever comes by does it, and the interpreter does it in one step, the first time only:
        # the winner may have been interrupted in between.
        self.own.extend(once)
        if winner is not spare:
            self.supply.give_back(spare)
        segment.seal()
        self._install(winner)
        if self._hands_over:
            self._hand_over()
        self.on_rotation()

    def _install(self, segment: Segment) -> None:
        segment.created = time.monotonic()
        self._current = segment
        self.write = segment.write

    def _hand_over(self) -> None:
        """Leave what is full to whoever relays, unlocked; one in memory gets its file first."""
        if self._handing_over.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):  # another time
                    self.shelter(most=1)  # a caller waits for it
                for segment in tuple(self.own):
                    done = segment.sealed and segment is not self._current
                    if done and not segment.is_homeless():
                        self.own.remove(segment)
                        segment.close()
            finally:
                self._handing_over.release()

    # -- the relay's side --------------------------------------------------------------------

    def provide(self) -> None:
        """Allocate ahead of need; what is in memory moves to the disk when that can be written.

        Raises:
            OSError: it cannot.
        """
        self.supply.provide(self.own)
        if self.directory is not None:
            if self.supply.spares and self._current.path is None:
                self.rotate(self._current)
            self.shelter()

    def shelter(self, most: int = sys.maxsize) -> None:
        """Give a file to ``most`` full segments that have none: in memory, or theirs was deleted.

        Raises:
            OSError: the disk does not let us.
        """
        homeless = [each for each in tuple(self.own) if each.sealed and each.is_homeless()]
        for segment in homeless[:most]:
            if self.directory is None or self.supply.room(self.own) < segment.size:
                return
            saved = segment.saved(self.directory)
            self.names.new = True
            try:
                self.own[self.own.index(segment)] = saved
            except ValueError:  # delivered and forgotten meanwhile
                saved.remove()
                saved.close()

    def rescue(self) -> None:
        """Start a new segment where the file of the current one was deleted or cut short.

        What was written to it is still in memory: it is delivered from there, and gets a new file.

        Raises:
            OSError: there is no other.
        """
        self.supply.drop_threatened()
        if self.directory is None or not self._current.is_threatened():
            return
        self.count("segment deleted under its writer", str(self._current.path))
        prepare_directory(self.directory, self.disk)
        self.names.uproot()
        self.rotate(self._current)

    def rotate_aged(self, seconds: float) -> None:
        """Seal a segment that has been written to for so long, so that its room can be freed."""
        current = self._current
        if current.tell() > PAGE and time.monotonic() - current.created > seconds:
            with contextlib.suppress(SpoolError):
                self.rotate(current)
                current.trim()

    def adopt(self) -> None:
        """Take over what dead processes left, and read along where a living one wants that.

        Raises:
            OSError: the directory cannot be read.
        """
        self.adopted.look((*self.own, *self.supply.spares))

    def sync(self) -> None:
        """Make all that this process has written up to now survive a power loss.

        Raises:
            SpoolError: some of it is in memory, and does not even survive the process.
            OSError: it would not.
        """
        for segment in tuple(self.own):
            if segment.is_homeless():
                raise self.supply.error("some of it has no file")
            segment.sync()
        self.names.sync()

    def ended(self, sinks: Sequence[str]) -> list[Segment]:
        """The full segments that these sinks, and those that their writers had, have passed."""
        return [segment for segment in (*self.own, *self.adopted) if segment.is_done(sinks)]

    def discard(self, segments: Sequence[Segment]) -> None:
        """Delete segments that every sink has, when what they have would survive a power loss.

        Raises:
            OSError: something could not be deleted. The next time will do.
        """
        read = any(segment.path and max(segment.cursors.values()) > PAGE for segment in segments)
        if not read or self.settle():
            for segment in segments:
                self.forget(segment)

    def forget(self, segment: Segment) -> None:
        """Delete a segment; one that the disk cannot read is set aside.

        Raises:
            OSError: it is still there.
        """
        if segment.is_sick and segment.path is not None:
            aside = segment.path.parent / QUARANTINE
            self.disk.make_directory(aside)
            self.disk.rename(segment.path, aside / segment.path.name)
        else:
            segment.remove()
        self._successors.pop(segment.number - 1, None)
        (self.own if segment in self.own else self.adopted).remove(segment)

    def usage(self) -> int:
        """Bytes that the directory holds, all processes together.

        Raises:
            OSError: it cannot be read.
        """
        return self.supply.usage(self.own)

    def finish(self, sinks: Sequence[str]) -> None:
        """Let nothing more in, and delete what every sink has: the relay's last act.

        Raises:
            OSError: something is left that was delivered. That does no harm.
        """
        current, end = self._current, self._current.tell()
        current.seal()
        if not current.has_more(end):  # written between the two
            current.passed |= {sink for sink, at in current.cursors.items() if at >= end}
        self.discard(self.ended(sinks))

    def seal(self) -> None:
        """Let nothing more in, and give back the room that this process has not used."""
        self.supply.drop_spares()
        for segment in tuple(self.own):
            segment.seal()
            with contextlib.suppress(OSError):
                segment.trim()

    def close(self) -> None:
        """Let go of everything; what some sink still has to read stays for the next process."""
        self.seal()
        with contextlib.suppress(OSError):
            self.shelter()
        lost = 0
        for segment in self.own:
            with contextlib.suppress(OSError):
                if not segment.has_more(PAGE):
                    segment.remove()
                elif segment.path is None and "store" not in segment.passed:
                    lost += 1
            segment.close()
        if lost:
            logger.error("sidelight: %d segments were kept in memory, and are lost with it", lost)
        self.adopted.close()

    def abandon(self) -> None:
        """In a forked child: forget what is the parent's, touching neither files nor locks."""
        self.adopted.close()
        for segment in (*self.own, *self.supply.spares):
            with contextlib.suppress(OSError, BufferError):
                segment.close()
