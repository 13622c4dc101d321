"""Hot segments: they lie on a tmpfs, where no busy disk delays a caller, and have copies on disk.

On a disk file system a caller's copy into a mapped page waits where that page is being written
back. On a tmpfs it never waits. What lies there survives the death of its process, but not that of
the machine. So the relay copies each hot segment to a file of the same name in the spool.

While both files exist, only the hot one counts, because it has everything. After a crash of the
machine only the copy exists. A link in the spool leads to the directory of the hot segments, so
that every relay of the spool finds them.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from sidelight.exceptions import ConfigurationError
from sidelight.host import allocate_lock, is_directory
from sidelight.record import length_of_frames
from sidelight.spool.allocation import ZEROS, new_file, write_all
from sidelight.spool.disk import DISK, Disk
from sidelight.spool.filesystems import filesystem, is_in_memory
from sidelight.spool.header import PAGE, READER_BYTE, Header, encode_header
from sidelight.spool.segment import Segment

LINK: Final = ".hot"
"""The suffix of the links that lead from a spool to directories of hot segments."""
_WRITABLE: Final = "name a directory that is writable"
_COPYING: Final = allocate_lock()


def hot_directory(root: str | None, spool: Path, *, make: bool = True) -> Path | None:
    """Make the directory of a spool's hot segments, with access for its owner only.

    Args:
        root: a directory on a tmpfs; None where there are to be no hot segments.
        spool: the spool's directory.
        make: whether to make it; else only check whether it can be made.

    Raises:
        ConfigurationError: ``root`` is not on a tmpfs, or is not writable.
    """
    if root is None:
        return None
    if not is_directory(Path(root)):
        _refuse(f"{root} is no directory", "name one on a tmpfs, such as /dev/shm")
    if not is_in_memory(Path(root)):
        kind = filesystem(Path(root)) or "an unknown filesystem"
        _refuse(f"{root} lies on {kind}", "name a directory on a tmpfs")
    key = f"{zlib.crc32(os.fsencode(os.path.realpath(spool))):08x}"
    path = Path(os.path.realpath(root)) / f"sidelight-{DISK.user()}-{key}"
    if not make and not os.path.lexists(path):
        if not DISK.is_writable(Path(root)):
            _refuse(f"{path} cannot be made ({root} is not writable)", _WRITABLE)
        return path
    try:
        DISK.make_directory(path)
    except OSError as error:
        _refuse(f"{path} cannot be made ({error.strerror})", _WRITABLE)
    if not DISK.is_trusted(path, spool):
        _refuse(f"{path} belongs to another user, or others may use it", "remove it")
    return path


def _refuse(problem: str, remedy: str) -> None:
    raise ConfigurationError(setting="hot", problem=problem, remedy=remedy)


def link_to(hot: Path, spool: Path, disk: Disk) -> None:
    """Let a spool lead to a directory of hot segments.

    Raises:
        OSError: the spool cannot be written.
    """
    name = f"{zlib.crc32(os.fsencode(hot)):08x}{LINK}"
    with contextlib.suppress(FileExistsError):
        disk.link(spool / name, hot)


def linked_from(spool: Path, names: Iterable[str], disk: Disk) -> list[Path]:
    """List the directories of hot segments that the links among a spool's names lead to."""
    targets = [disk.target(spool / name) for name in names if name.endswith(LINK)]
    return [each for each in targets if each is not None and disk.is_trusted(each, spool)]


def unseen_hot(spool: Path, disk: Disk = DISK) -> list[Path]:
    """List the directories of hot segments that cannot be seen from here.

    Raises:
        OSError: the spool cannot be read.
    """
    links = [disk.target(spool / name) for name in disk.names(spool) if name.endswith(LINK)]
    return [each for each in links if each is not None and not is_directory(each)]


class HotSegment(Segment):
    """A segment on a tmpfs.

    Attributes:
        spool: the directory of its copy.
    """

    spool: Path = Path()
    _copy: Copy | None = None

    @property
    def copy_path(self) -> Path:
        """The name of the copy on the disk."""
        return self.spool / (self.path.name if self.path is not None else "")

    def sync(self) -> None:
        """Bring the copy up to date, and make it survive a power loss.

        Raises:
            OSError: it might not.
        """
        self._synced_copy()

    def _synced_copy(self) -> Copy:
        with _COPYING:
            copy, self._copy = self._copy, None
            if copy is not None and not copy.is_in_place():
                copy.close()
                copy = None
            if copy is None:
                copy = Copy(self, self.copy_path, self.disk)
            try:
                copy.update(self)
            except OSError:  # the kernel may drop the pages of this copy
                copy.close()
                raise
            self._copy = copy
            return copy

    def cooled(self) -> Segment:
        """Give up the sealed segment for its copy; the file on the tmpfs stays.

        Raises:
            OSError: the copy is not complete.
        """
        copy = self._synced_copy()
        copy.end_with(self)
        self._copy = None
        header = Header(self.version, self.meta)
        cold = Segment(copy.fd, copy.path, None, self.size, header, self.disk)
        cold.number, cold.created, cold.synced = self.number, self.created, copy.end
        # Shared, because a worker may still be reading the original.
        cold.cursors, cold.delivered_to = self.cursors, self.delivered_to
        return cold

    def frames_end(self, offset: int) -> int:
        """Return the end of the complete frames behind ``offset``, where a frame begins.

        Another process may be in the middle of writing the next one.
        """
        end, is_final = self.extent()
        if is_final:
            return min(end, self.size)  # `trim` cuts a sealed segment
        while length := length_of_frames(self.read(offset)):
            offset += length
        return offset

    def remove(self) -> None:
        """Delete the file and its copy.

        Raises:
            OSError: one of them is still there.
        """
        self.disk.unlink(self.copy_path)
        super().remove()

    def remove_here(self) -> None:
        """Delete the file, and leave the copy.

        Raises:
            OSError: the file is still there.
        """
        super().remove()

    def close(self) -> None:
        """Close the file and its copy; their locks end."""
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.close()
        super().close()


class Copy:
    """The copy of one hot segment on the disk; the process that makes it is its only reader.

    Attributes:
        fd: the open file.
        path: its name.
        end: the offset up to which it has what the segment has, safe from a power loss.
    """

    def __init__(self, segment: HotSegment, path: Path, disk: Disk) -> None:
        """Allocate the copy; an older one under the name, of a relay that has ended, is replaced.

        Raises:
            OSError: there is no room, or no right to write.
        """
        self._disk = disk
        with new_file(path.parent, segment.size, (), disk, name=path.name) as (fd, _):
            self.fd, self.path, self.end = fd, path, PAGE
            # Else another relay takes the copy for the segment of a live external writer.
            disk.lock_byte(fd, READER_BYTE)
            write_all(disk, fd, encode_header(segment.meta), 0)
            self._bring(segment)
            disk.sync(fd)
        disk.sync_directory(path.parent)

    def update(self, segment: HotSegment) -> None:
        """Copy what the segment has more, and make it survive a power loss.

        Raises:
            OSError: it might not.
        """
        if (end := self._bring(segment)) > self.end:
            self._disk.sync(self.fd)
            self.end = end

    def end_with(self, segment: HotSegment) -> None:
        """Take over the cursors and the size of a sealed segment.

        Raises:
            OSError: the disk refuses.
        """
        write_all(self._disk, self.fd, segment.read(0, PAGE), 0)
        self._disk.truncate(self.fd, segment.size)

    def _bring(self, segment: HotSegment) -> int:
        at, end = self.end, segment.frames_end(self.end)
        while at < end:
            piece = segment.read(at, min(len(ZEROS), end - at))
            write_all(self._disk, self.fd, piece, at)
            at += len(piece)
        return end

    def is_in_place(self) -> bool:
        """Return whether the copy is still at its path."""
        return self._disk.is_own(self.fd) and self._disk.is_at(self.fd, self.path)

    def close(self) -> None:
        """Close the file; its lock ends."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._disk.close(fd)


def hot_among(segments: Iterable[Segment]) -> list[HotSegment]:
    """List the open hot segments among ``segments``."""
    return [s for s in segments if isinstance(s, HotSegment) and s.has_descriptor()]


def replace_by_copies(
    segments: Iterable[HotSegment], replace: Callable[[Segment, Segment], None]
) -> None:
    """Replace sealed hot segments by their copies.

    A segment of this process that an external relay reads is left to that relay.

    Args:
        segments: the hot segments.
        replace: puts another segment in the place of one; ValueError where that was deleted.

    Raises:
        OSError: the disk refuses.
    """
    for segment in [each for each in segments if each.sealed]:
        if segment.mapping is not None and segment.has_reader:
            continue
        cold = segment.cooled()
        try:
            replace(segment, cold)
        except ValueError:  # delivered and deleted meanwhile
            cold.remove()
            cold.close()
        segment.remove_here()
