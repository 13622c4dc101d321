"""Rescues records that only the memory of an ending process holds: into a file that is open.

Where no new file can be had, because the disk is full or the process may open no file, a file that
the process has open takes as many records as there is room for. Behind its last frame each file
has a page that no caller writes to. The last ledger is written there, so that what no file took is
counted.
"""

from __future__ import annotations

import contextlib
import errno
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from sidelight.record import FRAME, is_ledger, length_of_frames
from sidelight.spool.allocation import write_all
from sidelight.spool.failures import os_error_text
from sidelight.spool.header import PAGE
from sidelight.spool.hot import HotSegment
from sidelight.spool.segment import Segment

_BLANK: Final = bytes(PAGE)


class Rescue:
    """The last writes of a process, into a file that it has open; nothing else writes there.

    Args:
        own: the segments of the process, all sealed.
        sinks: those that are to have the records.
        store_directly: hands one frame to the store; returns whether the store has it.

    Attributes:
        cause: why the file did not take everything, in words.
    """

    def __init__(
        self,
        own: Sequence[Segment],
        sinks: Collection[str],
        store_directly: Callable[[bytes], bool],
    ) -> None:
        self._own = own
        self._sinks = sinks
        self._store_directly = store_directly
        self.cause = "no file is open"
        self._file: Segment | None = None
        self._end = 0  # behind the last frame of the file

    def save(self, room: Callable[[], int]) -> dict[str, int]:
        """Append to the file what is in memory; return how many records it did not take, by sink.

        It is 0 where only ledgers are left.

        Args:
            room: returns the bytes that the spool may still grow by.
        """
        with contextlib.suppress(OSError):
            self._begin()
        lost: Counter[str] = Counter()
        for segment in [s for s in tuple(self._own) if s.lacks_file() and s.has_more(PAGE)]:
            needed = {*self._sinks} - segment.delivered_to
            begin = min((segment.cursors[sink] for sink in needed), default=segment.size)
            try:
                free = room()
            except OSError:  # no descriptor is left to list the directory
                free = segment.size
            with contextlib.suppress(OSError):
                begin = self._take(segment, begin, free)
            for sink in needed:
                left = [*_frames(segment, max(begin, segment.cursors[sink]))]
                if left:
                    lost[sink] += sum(not is_ledger(frame[FRAME.size :]) for frame in left)
        return lost

    def append(self, frame: bytes) -> None:
        """Append one frame to the page that is kept free for it; else hand it to the store.

        Raises:
            OSError: there is no file or no room in it, and the store does not answer.
        """
        try:
            self._append(frame)
        except OSError:
            if not self._store_directly(frame):
                raise

    def _append(self, frame: bytes) -> None:
        if self._file is None:
            raise OSError(errno.EBADF, "no file is open")
        _write(self._file, frame, self._end)
        self._end += len(frame)
        self._file.size = max(self._file.size, self._end)

    def _begin(self) -> None:
        """Choose the file, and move cursors that are behind its last frame to that.

        A hot segment is not chosen, because what is appended would not be copied to the disk.
        """
        file = newest_file([each for each in tuple(self._own) if not isinstance(each, HotSegment)])
        if file is not None:
            file.delivered_to.clear()  # it is not to be deleted
            self._end = file.end_of_frames()
            for sink, cursor in [*file.cursors.items()]:
                if cursor > self._end:
                    file.advance(sink, self._end)
            self._file = file

    def _take(self, segment: Segment, start: int, room: int) -> int:
        """Append the frames of a segment from ``start`` on; return where the first one left is.

        Where the disk refuses many frames, it is offered fewer. A page behind them stays free.

        Raises:
            OSError: the file cannot be written.
        """
        file, lengths = self._file, [len(frame) for frame in _frames(segment, start)]
        most = len(lengths)
        while lengths and most and file is not None:
            data = segment.read(start, sum(lengths[:most]))
            self.cause = "the spool is full"
            if len(data) > room or not self._appends(file, data + _BLANK):
                most = min(most, len(lengths)) // 2
                continue
            del lengths[:most]
            start, self._end, room = start + len(data), self._end + len(data), room - len(data)
        if file is not None:
            _write(file, _BLANK, self._end)  # a part of a frame may be there
            file.size = self._end + PAGE
            file.disk.truncate(file.fd, file.size)
        return start

    def _appends(self, file: Segment, data: bytes) -> bool:
        try:
            _write(file, data, self._end)
        except OSError as error:
            self.cause = os_error_text(error)
            return False
        return True


def _write(file: Segment, data: bytes, offset: int) -> None:
    """Write into a file; through a mapping where RLIMIT_FSIZE forbids to write so far behind.

    Raises:
        OSError: the file did not take all of it.
    """
    disk, end = file.disk, offset + len(data)
    try:
        write_all(disk, file.fd, data, offset)
    except OSError as error:
        if error.errno != errno.EFBIG or end > disk.size(file.fd):
            raise
        mapping = disk.map(file.fd, end)
        mapping[offset:end] = data
        disk.unmap(mapping)


def is_volatile(own: Sequence[Segment], position: tuple[int, int]) -> bool:
    """Return whether only memory may hold a record of this process.

    Args:
        own: the segments of the process.
        position: behind the record. Where another thread has rotated meanwhile, the record is in
            the segment before.
    """
    numbers = position[0] - 1, position[0]
    return any(each.path is None and each.number in numbers for each in tuple(own))


def newest_file(own: Sequence[Segment]) -> Segment | None:
    """Return the newest segment that has a file; None where all are in memory."""
    files = (
        each for each in reversed(tuple(own)) if each.path is not None and not each.lacks_file()
    )
    return next(files, None)


def _frames(segment: Segment, offset: int) -> Iterator[bytes]:
    while length := length_of_frames(segment.read(offset, FRAME.size)):
        frame = segment.read(offset, length)
        yield frame
        offset += len(frame)
