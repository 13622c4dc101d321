"""The spool of one process: callers copy frames into it, and the relay reads them out of it.

A caller runs ``spool.write(frame)``, and ``write`` *is* the C method of the current segment's
mapping. Only where that raises (the segment is full) is anything decided here: a segment that the
relay has allocated ahead of need takes its place. No code on this path waits for a lock, so that a
signal handler may emit in the middle of a rotation.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from sidelight.exceptions import SpoolError
from sidelight.host import Turns, monotonic
from sidelight.spool.adoption import Adopted
from sidelight.spool.directory import NameSync, prepare_directory
from sidelight.spool.disk import DISK, Disk
from sidelight.spool.failures import FailureCounter
from sidelight.spool.header import PAGE, fit
from sidelight.spool.hot import hot_among, link_to, replace_by_copies
from sidelight.spool.quarantine import DIRECTORY as QUARANTINE
from sidelight.spool.quarantine import Quarantine
from sidelight.spool.rescue import Rescue, newest_file
from sidelight.spool.segment import SMALL, Segment
from sidelight.spool.supply import IDLE, Supply

Position: TypeAlias = tuple[int, int]
"""A position in this process's own segments: number of the segment, offset in it."""


class Spool:
    """The spool of this process in a directory that other processes may share.

    Attributes:
        write: appends one frame; raises ValueError where the caller must use `append`. Look it up
            for each emission, because it changes with the segment.
        directory: where the segments lie; None keeps them in memory, until the process ends.
        hot: where the segment lies that is being written, on a tmpfs; None for the directory.
        own: the segments that this process has written, the oldest first.
        adopted: the open segments of other processes.
        names: makes the names of segments survive a power loss.
        supply: allocates segments within the spool's limit.
        quarantine: keeps what cannot be delivered.
        count: counts a loss by reason.
        failures: counts failures that repeat, at a limited rate.
        sync_sinks: makes what the sinks have taken survive a power loss, and returns whether that
            succeeded. Delivered segments are deleted only after that.
        on_rotation: called after a segment was replaced.
        on_full: called where there is no room for another segment.
        on_lost: called at the end with how many records no file took, by sink.
        store_directly: hands one frame to the store; returns whether the store has it.
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
        hot: Path | None = None,
        quarantine: Path | None = None,
        on_call: bool = False,
    ) -> None:
        self.directory = directory
        self.quarantine = Quarantine(directory or quarantine)
        self.meta, left_out = fit(meta)
        self.names = NameSync(directory, disk)
        self.hot = hot
        self.supply = Supply(directory, self.meta, limit, count, disk, self.names, hot)
        self.count = count
        self.failures = FailureCounter(count)
        self.disk = disk
        self.on_rotation: Callable[[], object] = lambda: None
        self.on_full: Callable[[], object] = lambda: None
        self.on_lost: Callable[[Rescue, Mapping[str, int]], object] = lambda _rescue, _lost: None
        self.store_directly: Callable[[bytes], bool] = lambda _frame: False
        self._is_saved = False
        self.sync_sinks: Callable[[], bool] = lambda: True
        self.own: deque[Segment] = deque()
        self.adopted = Adopted(directory, self.meta, self.supply, self.names, count, disk)
        self.write: Callable[[bytes], int]
        self._relay_is_external = self.meta.get("relay") == "external"
        self._handing_over = Turns()
        self._successors: dict[int, tuple[Segment, Iterator[Segment]]] = {}
        first = self.supply.first(first, on_call=on_call)
        first.number = 1
        self._install(first)
        self.own.append(first)
        self._begin_hot()
        if left_out:
            self.count("resource attributes too large", ", ".join(left_out))

    # -- the caller's side -------------------------------------------------------------------

    def append(self, frame: bytes) -> None:
        """Append one frame where `write` could not: rotate, then write.

        Raises:
            SpoolError: there is no room, on disk or within the limit.
        """
        for _ in range(8):  # other threads can fill only so many new segments in between
            segment = self._current
            try:
                segment.write(frame)
            except ValueError:
                self.rotate(segment)
            else:
                return
        raise self.supply.error("its segments fill faster than they can be replaced")

    def append_beyond_limit(self, frame: bytes) -> None:
        """Append one frame, if need be a little beyond the limit; the last ledger needs this.

        Raises:
            SpoolError, OSError: there is no room on disk or in memory.
        """
        try:
            self.append(frame)
        except SpoolError:
            self.supply.spares.append(self.supply.create(SMALL))
            self.append(frame)

    def position(self) -> Position:
        """Return a position behind every frame that this thread has written so far."""
        newest = self.own[-1]
        return newest.number, newest.tell()

    def rotate(self, segment: Segment) -> None:
        """Replace ``segment`` by the next one; where several threads do, one of them wins.

        A segment is sealed, and may be deleted, only after it has a successor.

        Raises:
            SpoolError: there is no room for another segment.
        """
        newest = self.own[-1]
        if newest.number > segment.number:
            segment.seal()
            self._install(newest)
            return
        try:
            spare = self.supply.take(self.own)
        except SpoolError:
            self.on_full()
            raise
        spare.number = segment.number + 1
        winner, once = self._successors.setdefault(segment.number, (spare, iter((spare,))))
        # `once` is a shared one-shot iterator: `deque.extend` appends the winner exactly once,
        # even where a signal handler interrupted the thread that won.
        self.own.extend(once)
        if winner is not spare:
            self.supply.put_back(spare)
        segment.seal()
        self._install(winner)
        if self._relay_is_external:
            self._hand_over()
        self.on_rotation()

    def _install(self, segment: Segment) -> None:
        segment.created = monotonic()
        self._current = segment
        self.write = segment.write

    def _hand_over(self) -> None:
        """Close full segments for the external relay; the newest file is left for the `rescue`."""
        ticket = object()
        try:
            if self._handing_over.take(ticket, 0.0):
                with contextlib.suppress(OSError):  # the next rotation tries again
                    self.move_to_disk(most=1)  # one only, because a caller waits for it
                kept = newest_file(self.own) if self._current.path is None else self._current
                for segment in [s for s in tuple(self.own) if s not in {kept, self._current}]:
                    if segment.sealed and not segment.lacks_file():
                        self.own.remove(segment)
                        segment.close()
        finally:
            self._handing_over.pop(ticket, None)

    # -- the relay's side --------------------------------------------------------------------

    def provide(self) -> None:
        """Allocate spares, and move segments from memory to the disk.

        Raises:
            OSError: the disk refuses.
        """
        self.supply.provide(self.own)
        if self.directory is not None:
            if self.supply.spares and self._current.path is None:
                self.rotate(self._current)
            self.move_to_disk()

    def move_to_disk(self, most: int = sys.maxsize) -> None:
        """Copy up to ``most`` sealed segments that lack a file into new files.

        Raises:
            OSError: the disk refuses.
        """
        without_file = [each for each in tuple(self.own) if each.sealed and each.lacks_file()]
        for segment in without_file[:most]:
            if self.directory is None or self.supply.room(self.own) < segment.size:
                return
            copy = segment.copy_to(self.directory)
            self.names.is_due = True
            try:
                self.own[self.own.index(segment)] = copy
                segment.remove()  # its file, where only the descriptor was lost
            except ValueError:  # delivered and deleted meanwhile
                copy.remove()
                copy.close()

    def copy_hot(self) -> bool:
        """Bring the copies of hot segments up to date; return whether there are hot segments.

        Raises:
            OSError: the disk refuses.
        """
        hot = hot_among((*self.own, *self.adopted))
        try:
            for segment in hot:
                segment.sync()
        except FileNotFoundError:  # the spool was deleted or moved
            self._begin_hot()
            raise
        replace_by_copies(hot, self._replace)
        return bool(hot)

    def _replace(self, segment: Segment, by: Segment) -> None:
        if segment in self.own:
            self.own[self.own.index(segment)] = by
        else:
            self.adopted.replace(segment, by)

    def _begin_hot(self) -> None:
        """Let the spool lead to the hot segments, so that every relay finds them."""
        if self.hot is not None and self.directory is not None:
            with contextlib.suppress(OSError):  # the next copy tries again
                self.disk.make_directory(self.directory)
                self.names.directory_was_recreated()
                link_to(self.hot, self.directory, self.disk)

    def replace_lost_segment(self) -> None:
        """Rotate off a segment whose file was deleted, moved or cut short.

        The directory may have been moved or replaced as well. The frames are still in memory. They
        are delivered from there, and get a new file at the path of the spool.

        Raises:
            OSError: there is no other segment.
        """
        self.supply.drop_lost_spares()
        if self.directory is None or not self._current.has_lost_file():
            return
        self.count("segment deleted under its writer", str(self._current.path))
        prepare_directory(self.directory, self.disk)
        self.names.directory_was_recreated()
        self.rotate(self._current)

    def rotate_aged(self, seconds: float) -> None:
        """Rotate off a segment that is older than ``seconds``, so that its room can be freed.

        Raises:
            OSError: the disk refuses.
        """
        current, is_idle = self._current, not self.supply.wanted(self.own)
        if monotonic() - current.created < seconds:
            return
        if current.tell() > PAGE or (is_idle and current.size > IDLE):
            if is_idle:
                self.supply.spares.append(self.supply.create(IDLE))
            with contextlib.suppress(SpoolError):
                self.rotate(current)
                current.trim()

    def adopt(self) -> None:
        """Adopt orphaned segments, and follow live ones whose writers want an external relay.

        Raises:
            OSError: the directory cannot be read.
        """
        self.adopted.search((*self.own, *self.supply.spares))

    def sync(self) -> None:
        """Make every frame that this process has written so far survive a power loss.

        Raises:
            SpoolError: some frames are in memory, and do not even survive the process.
            OSError: the frames might not survive.
        """
        for segment in tuple(self.own):
            if segment.lacks_file():
                raise self.supply.error("some of it has no file")
            segment.sync()
        self.names.sync()

    def delivered(self, sinks: Sequence[str]) -> list[Segment]:
        """List the sealed segments that ``sinks`` and the sinks of their writers have.

        While records are in memory, the newest file of this process stays for the `rescue`.
        """
        own, kept = tuple(self.own), None
        if any(each.path is None and not each.is_delivered_to(sinks) for each in own):
            kept = newest_file(own)
        every = (*own, *self.adopted)
        return [each for each in every if each is not kept and each.is_delivered_to(sinks)]

    def discard(self, segments: Sequence[Segment]) -> None:
        """Delete segments that every sink has, once the sinks' content survives a power loss.

        Raises:
            OSError: a segment could not be deleted. The next call tries again.
        """
        any_read = any(each.path and max(each.cursors.values()) > PAGE for each in segments)
        if not any_read or self.sync_sinks():
            for segment in segments:
                self.delete(segment)

    def delete(self, segment: Segment) -> None:
        """Delete a segment; move one that the disk cannot read to the quarantine.

        Raises:
            OSError: the file is still there.
        """
        if segment.is_unreadable and segment.path is not None:
            quarantine = segment.path.parent / QUARANTINE
            self.disk.make_directory(quarantine)
            self.disk.rename(segment.path, quarantine / segment.path.name)
        else:
            segment.remove()
        self._successors.pop(segment.number - 1, None)
        (self.own if segment in self.own else self.adopted).remove(segment)

    def usage(self) -> int:
        """Return the bytes that the directory holds, of all processes together.

        Raises:
            OSError: the directory cannot be read.
        """
        return self.supply.usage(self.own)

    def finish(self, sinks: Sequence[str]) -> None:
        """Refuse further frames, and delete what every sink has; the relay's last act.

        Raises:
            OSError: a delivered segment is left. The next process delivers nothing twice.
        """
        current, end = self._current, self._current.tell()
        current.seal()
        if not current.has_more(end):  # nothing was written between `tell` and `seal`
            current.delivered_to |= {sink for sink, at in current.cursors.items() if at >= end}
        self.discard(self.delivered(sinks))

    def seal(self) -> None:
        """Refuse further frames, and give back the room that this process has not used."""
        self.supply.delete_spares()
        for segment in tuple(self.own):
            segment.seal()
            with contextlib.suppress(OSError):
                segment.trim()

    def close(self) -> None:
        """Close every segment; undelivered records stay in their files for the next process."""
        self.seal()
        with contextlib.suppress(OSError):
            if self.directory is not None and any(each.lacks_file() for each in tuple(self.own)):
                self.disk.make_directory(self.directory)  # it may have been moved or deleted
            replace_by_copies(hot_among(tuple(self.own)), self._replace)
        self.save()
        for segment in tuple(self.own):
            with contextlib.suppress(OSError):
                if not segment.has_more(PAGE):
                    segment.remove()
            segment.close()
        self.adopted.close()

    def save(self) -> None:
        """Refuse further frames; bring those in memory to new files, else to one that is open."""
        self.seal()
        if not self._is_saved:
            self._is_saved = True
            with contextlib.suppress(OSError):
                self.move_to_disk()
            rescue = Rescue(self.own, self.meta.get("sinks", ("store",)), self.store_directly)
            if lost := rescue.save(lambda: self.supply.room(self.own)):
                self.on_lost(rescue, lost)

    def abandon(self) -> None:
        """In a forked child: close the parent's segments, without touching files or locks."""
        self.adopted.close()
        for segment in (*self.own, *self.supply.spares):
            with contextlib.suppress(OSError, BufferError):
                segment.close()
