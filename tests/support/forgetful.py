"""A simulated machine: its disk loses unflushed data at a power cut, and fails or kills when told.

It replaces `sidelight.spool.disk.Disk`. A write is in the page cache at once, and on the disk when
it is flushed, or at any time before. A power cut takes any of the sectors, lengths and names that
were not flushed. A failed flush is reported once, and its data is dropped then, as Linux does.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from sidelight.spool.disk import Disk

SECTOR = 512


class Killed(BaseException):
    """The process died in the middle of a system call."""


class Inode:
    """A file: its content in the kernel, and on the disk."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.dirty: set[int] = set()
        self.owner: Handle | None = None
        self.bytes_locked: dict[int, Handle] = {}
        self.links = 0
        self.has_failed = False  # a flush of it: its content is undefined after a power cut

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if end > len(self.data):
            self.data.extend(bytes(end - len(self.data)))
        self.data[offset:end] = data
        self.dirty.update(range(offset // SECTOR, (end + SECTOR - 1) // SECTOR))

    def cut(self, size: int) -> None:
        del self.data[size:]
        self.dirty = {sector for sector in self.dirty if sector * SECTOR < size}

    def flush(self, sectors: set[int]) -> None:
        """Write sectors to the disk; a gap before them is filled with zeros."""
        for sector in sectors:
            at = sector * SECTOR
            piece = self.data[at : at + SECTOR]
            if at + len(piece) > len(self.durable):
                self.durable.extend(bytes(at + len(piece) - len(self.durable)))
            self.durable[at : at + len(piece)] = piece
        self.dirty -= sectors

    def sync(self) -> None:
        self.flush(set(self.dirty))
        del self.durable[len(self.data) :]
        self.durable.extend(bytes(len(self.data) - len(self.durable)))

    def lose_power(self, random: Random) -> None:
        share = random.choice((0.0, 0.5, 1.0))
        length = random.choice((len(self.durable), len(self.data)))
        self.flush({sector for sector in sorted(self.dirty) if random.random() < share})
        if random.random() < 0.5:
            del self.durable[length:]
        self.data = bytearray(self.durable)
        self.dirty = set()
        self.owner, self.bytes_locked = None, {}


class Folder:
    """A directory: its names now, its durable names, and the changes between them.

    A `volatile` one lies on a tmpfs: a power cut takes all of it.
    """

    def __init__(self, *, volatile: bool = False) -> None:
        self.volatile = volatile
        self.names: dict[str, Inode | Folder] = {}
        self.durable: dict[str, Inode | Folder] = {}
        self.changes: list[tuple[str | None, str | None, Inode | Folder]] = []

    def change(self, old: str | None, new: str | None, what: Inode | Folder) -> None:
        """Remove the name ``old``, add the name ``new``, or both at once."""
        self._apply(self.names, old, new, what)
        self.changes.append((old, new, what))

    def sync(self) -> None:
        if not self.volatile:
            self.durable, self.changes = dict(self.names), []

    def lose_power(self, random: Random) -> None:
        share = 0.0 if self.volatile else random.choice((0.0, 0.5, 1.0))
        for change in self.changes:
            if random.random() < share:
                self._apply(self.durable, *change)
        self.names, self.changes = dict(self.durable), []

    @staticmethod
    def _apply(names, old, new, what) -> None:
        if old is not None:
            names.pop(old, None)
        if new is not None:
            names[new] = what


@dataclass(eq=False)
class Handle:
    """An open file of one process."""

    inode: Inode


class Mapping:
    """Replaces `mmap.mmap` for its writer."""

    def __init__(self, inode: Inode, size: int) -> None:
        self._inode = inode
        self._size = size
        self._at = 0
        self._is_closed = False

    def _check(self) -> None:
        if self._is_closed:
            raise ValueError("mmap closed or invalid")

    def write(self, data: bytes) -> int:
        self._check()
        if self._at + len(data) > self._size:
            raise ValueError("data out of range")
        assert self._at + len(data) <= len(self._inode.data), "SIGBUS"
        self._inode.write(self._at, data)
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        self._check()
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> None:
        self._check()
        self._at = self._size if whence == os.SEEK_END else offset

    def __getitem__(self, where: slice) -> bytes:
        self._check()
        return bytes(self._inode.data[where])

    def __setitem__(self, where: slice, data: bytes) -> None:
        self._check()
        self._inode.write(where.start or 0, data)

    def madvise(self, *_: int) -> None:
        pass

    def close(self) -> None:
        self._is_closed = True


@dataclass
class Fault:
    """The next calls of this name fail, are cut short (error 0), or kill (below 0)."""

    call: str
    error: int
    times: int = 1
    skip: int = 0


class Machine:
    """The disk that several processes share."""

    def __init__(self) -> None:
        self.root = Folder()
        self.inodes: list[Inode] = []
        self.links: dict[Path, Path] = {}
        self.boots = 0
        self.created: set[str] = set()
        self.removed: list[Inode] = []
        self.faults: list[Fault] = []
        self.failures: Counter[str] = Counter()

    def folder(self, path: Path) -> Folder:
        folder = self.root
        for name in path.parts[1:]:
            found = folder.names.get(name)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            assert isinstance(found, Folder)
            folder = found
        return folder

    def cut_power(self, random: Random) -> None:
        """End every process, and lose some of the unflushed data."""
        self.boots += 1
        for folder in self._folders(self.root):
            folder.lose_power(random)
        for inode in self.inodes:
            inode.links = 0
            inode.lose_power(random)
        for folder in self._folders(self.root):
            for found in folder.names.values():
                if isinstance(found, Inode):
                    found.links += 1

    def _folders(self, folder: Folder) -> list[Folder]:
        found = {id(f): f for f in (*folder.names.values(), *folder.durable.values())}
        below = [f for f in found.values() if isinstance(f, Folder)]
        return [folder, *(each for under in below for each in self._folders(under))]


@dataclass
class ProcessDisk(Disk):
    """The disk for one process."""

    machine: Machine
    handles: dict[int, Handle] = field(default_factory=dict)
    is_dead: bool = False
    _next: int = 3

    def kill(self) -> None:
        """Close what the process had open, as the kernel does."""
        self.is_dead = True
        for fd in list(self.handles):
            self._release(self.handles.pop(fd))

    def reach(self, call: str) -> int | None:
        """Apply a fault that is due; return 1 where a write is to be cut short, else None."""
        if self.is_dead:
            raise Killed
        for fault in self.machine.faults:
            if fault.call == call:
                fault.skip -= 1
                if fault.skip >= 0:
                    continue
                fault.times -= 1
                if fault.times <= 0:
                    self.machine.faults.remove(fault)
                if fault.error < 0:
                    self.kill()
                    raise Killed
                if fault.error == 0:
                    return 1
                self.machine.failures[call] += 1
                raise OSError(fault.error, os.strerror(fault.error))
        return None

    def boot(self) -> bytes:
        return b"boot %d" % self.machine.boots

    # -- names

    def make_directory(self, path: Path) -> None:
        self.reach("make_directory")
        folder = self.machine.root
        for name in path.parts[1:]:
            if name not in folder.names:
                folder.change(None, name, Folder())
            folder = folder.names[name]

    def is_writable(self, directory: Path) -> bool:
        return True

    def names(self, directory: Path) -> list[str]:
        self.reach("names")
        links = [path.name for path in self.machine.links if path.parent == directory]
        return [*self.machine.folder(directory).names, *links]

    def link(self, path: Path, target: Path) -> None:
        self.machine.links[path] = target

    def target(self, path: Path) -> Path | None:
        return self.machine.links.get(path)

    def is_trusted(self, directory: Path, of: Path) -> bool:
        return True

    def size_of(self, path: str) -> int:
        return len(self._find(Path(path)).data)

    def rename(self, old: Path, new: Path) -> None:
        self.reach("rename")
        inode = self._find(old)
        if old.parent == new.parent:
            self.machine.folder(old.parent).change(old.name, new.name, inode)
        else:
            self.machine.folder(new.parent).change(None, new.name, inode)
            self.machine.folder(old.parent).change(old.name, None, inode)
        self.reach("rename ends")

    def unlink(self, path: Path) -> None:
        self.reach("unlink")
        inode = self.machine.folder(path.parent).names.get(path.name)
        if inode is not None:
            self.machine.folder(path.parent).change(path.name, None, inode)
            inode.links -= 1
            if path.suffix == ".segment" and not self.machine.folder(path.parent).volatile:
                self.machine.removed.append(inode)
        self.reach("unlink ends")

    def sync_directory(self, path: Path) -> None:
        self.reach("sync_directory")
        self.machine.folder(path).sync()

    # -- files

    def create(self, path: Path) -> int:
        self.reach("create")
        assert path.name not in self.machine.created, "a name is used twice"
        self.machine.created.add(path.name)
        inode = Inode()
        inode.links = 1
        self.machine.inodes.append(inode)
        self.machine.folder(path.parent).change(None, path.name, inode)
        return self._opened(inode)

    def open(self, path: Path, *, writable: bool) -> int:
        self.reach("open")
        return self._opened(self._find(path))

    def close(self, fd: int) -> None:
        if not self.is_dead:  # else `kill` has closed it
            self._release(self.handles.pop(fd))

    def is_at(self, fd: int, path: Path) -> bool:
        try:
            return self._find(path) is self._inode(fd)
        except FileNotFoundError:
            return False

    def is_own(self, fd: int) -> bool:
        return fd in self.handles

    def unmap(self, mapping: Mapping) -> None:
        mapping.close()

    def size(self, fd: int) -> int:
        return len(self._inode(fd).data)

    def is_linked(self, fd: int) -> bool:
        return self._inode(fd).links > 0

    def allocate(self, fd: int, size: int) -> None:
        self.reach("allocate")
        inode = self._inode(fd)
        inode.data.extend(bytes(max(0, size - len(inode.data))))

    def truncate(self, fd: int, size: int) -> None:
        self.reach("truncate")
        self._inode(fd).cut(size)

    def write(self, fd: int, data: bytes, offset: int) -> int:
        short = self.reach("write")
        written = data if short is None else data[: max(1, len(data) // 2)]
        self._inode(fd).write(offset, bytes(written))
        return len(written)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        self.reach("read")
        return bytes(self._inode(fd).data[offset : offset + size])

    def map(self, fd: int, size: int) -> Mapping:
        self.reach("map")
        if fd < 0:
            inode = Inode()
            inode.data = bytearray(size)
            return Mapping(inode, size)
        return Mapping(self._inode(fd), size)

    def sync(self, fd: int) -> None:
        inode = self._inode(fd)
        try:
            self.reach("sync")
        except OSError:
            inode.dirty, inode.has_failed = set(), True
            raise
        inode.sync()

    def lock(self, fd: int) -> bool:
        handle = self._handle(fd)
        if handle.inode.owner not in {None, handle}:
            return False
        handle.inode.owner = handle
        return True

    def lock_byte(self, fd: int, byte: int) -> bool:
        handle = self._handle(fd)
        return handle.inode.bytes_locked.setdefault(byte, handle) is handle

    def is_byte_locked(self, fd: int, byte: int) -> bool:
        handle = self._handle(fd)
        return handle.inode.bytes_locked.get(byte, handle) is not handle

    def _find(self, path: Path) -> Inode:
        inode = self.machine.folder(path.parent).names.get(path.name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return inode

    def _opened(self, inode: Inode) -> int:
        self._next += 1
        self.handles[self._next] = Handle(inode)
        return self._next

    def _handle(self, fd: int) -> Handle:
        if self.is_dead:
            raise Killed
        return self.handles[fd]

    def _inode(self, fd: int) -> Inode:
        return self._handle(fd).inode

    @staticmethod
    def _release(handle: Handle) -> None:
        inode = handle.inode
        if inode.owner is handle:
            inode.owner = None
        inode.bytes_locked = {b: h for b, h in inode.bytes_locked.items() if h is not handle}
