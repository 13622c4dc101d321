"""The number of an open file, which knows whether it still is that file.

A daemon closes every descriptor that it inherits, and its own files then get the numbers.

pyfakefs replaces ``os`` in every module, for a time. Its `os.open` returns a number that may be the
number of a real file. The system calls that pyfakefs does not replace would write into that file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Self

from sidelight.host.platform import HAS_FILE_LOCKS, IS_LINUX

if TYPE_CHECKING:
    from pathlib import Path  # slow to import

fcntl: Any = None
if HAS_FILE_LOCKS:
    import fcntl

OPEN_FILES: Final = "/proc/self/fd" if IS_LINUX else "/dev/fd"
"""The directory that names the descriptors of this process."""

fstat: Final = partial(os.fstat)  # pyfakefs does not look into a partial
"""Return the status of an open file, also while a test has replaced the file system."""
_close: Final = partial(os.close)
_NOTHING: Final = getattr(os, "O_PATH", os.O_RDONLY)  # no read, write or lock of a directory works
_NO_FILE: Final = (-1, -1)
_CLOSED: Final = "other code has closed the descriptor"


def is_faked() -> bool:
    """Return whether a test has replaced the file system, so that a new descriptor is no file."""
    return not isinstance(os, ModuleType)


def require_files() -> None:
    """Check that the file system is the real one.

    Raises:
        OSError: a test has replaced it.
    """
    if is_faked():
        raise OSError(errno.ENOTSUP, "pyfakefs has replaced the file system")


class Descriptor(int):
    """The number of an open file, and the file that was opened as it.

    Attributes:
        file: device and inode.
        path: the name under which the file was opened.
        lock_files: the open lock files that stand for locked bytes of it, where there are any.
    """

    file: tuple[int, int]
    path: Path | str
    lock_files: dict[int, Descriptor]

    def __new__(cls, number: int, path: Path | str = "") -> Self:
        """Note which file has the number now.

        Args:
            number: a descriptor.
            path: the name that was just opened as it. Another thread may have closed the number
                since, and a file of other code may have got it.

        Raises:
            FileNotFoundError: no file has the name any more, and the number is of no such file.
            OSError: it is no descriptor, or not of the file of that name; or a test has replaced
                the file system.
        """
        require_files()
        self = super().__new__(cls, number)
        self.file, self.path, self.lock_files = identity(number), path, {}
        if path:
            self._require_name(path)
        return self

    def _require_name(self, path: Path | str) -> None:
        """Check that the number is of a file that has, or just had, this name."""
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError:
            name = self._name()
            if os.path.basename(name) == os.path.basename(path):  # noqa: PTH119
                return  # deleted meanwhile
            if not name and fstat(self).st_nlink == 0:
                return  # the same, where the system tells no name
            if os.path.dirname(name) == os.path.realpath(os.path.dirname(path)):  # noqa: PTH120
                _close(self)  # renamed meanwhile
            raise
        is_named = self.file == (status.st_dev, status.st_ino)
        if not is_named and os.path.basename(self._name()) != os.path.basename(path):  # noqa: PTH119
            raise OSError(errno.EBADF, _CLOSED)

    def _name(self) -> str:
        """Return the name that the system knows; "" where it tells none."""
        with contextlib.suppress(OSError):
            return os.readlink(f"{OPEN_FILES}/{int(self)}").removesuffix(" (deleted)")  # noqa: PTH115
        return ""

    def is_own(self) -> bool:
        """Return whether the number still is the file that was opened as it."""
        try:
            return self.file == identity(self)
        except OSError:
            return False

    def __enter__(self) -> Self:
        """Return the number."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file and its lock files, unless other code has closed them."""
        for each in (*self.lock_files.values(), self):
            if each.is_own():
                _close(each)
        self.lock_files.clear()


def close_lost(descriptors: Iterable[Descriptor], close: Callable[[], object]) -> bool:
    """Let a library close its files, of which other code has closed some.

    A library that closes numbers that are free may close a file that just got one of them. So each
    free number gets a descriptor first that can do nothing.

    Args:
        descriptors: of the library.
        close: closes them.

    Returns:
        Whether the library has closed them all. It was not asked where a number is another file's
        now. Numbers that it keeps, for another connection, stay occupied for ever.
    """
    lost = sorted(each for each in descriptors if not each.is_own())
    held: list[Descriptor] = []
    with contextlib.suppress(OSError):  # no number is free
        held.extend(_hold(lost) if lost and fcntl is not None else ())
    if [*map(int, held)] != [*map(int, lost)]:
        for each in held:
            each.close()
        return False
    close()
    return not any(each.is_own() for each in held)


def _hold(numbers: Sequence[int]) -> Iterator[Descriptor]:
    """Put nothing on each number, or on the next that is free."""
    with Descriptor(os.open("/", _NOTHING), "/") as low:  # perhaps one of the numbers
        nothing = Descriptor(fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, max(numbers) + 1))
    with nothing:
        for each in numbers:
            yield Descriptor(fcntl.fcntl(nothing, fcntl.F_DUPFD_CLOEXEC, each))


def identity(fd: int) -> tuple[int, int]:
    """Device and inode of an open file."""
    status = fstat(fd)
    return status.st_dev, status.st_ino


def descriptors_of(*paths: Path) -> set[Descriptor]:
    """Return the descriptors that this process has open for files; none where they are hidden."""
    wanted = set()
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.stat()
            wanted.add((status.st_dev, status.st_ino))
    found = set()
    with contextlib.suppress(OSError):
        for number in map(int, os.listdir(OPEN_FILES)):  # noqa: PTH208
            with contextlib.suppress(OSError):
                each = Descriptor(number)
                if each.file in wanted:
                    found.add(each)
    return found


def socket_descriptor(number: int) -> Descriptor | None:
    """Return the descriptor of a socket; None where a socket has none, as on Windows.

    Where other code has closed the number already, the descriptor is never the process's own.
    """
    if is_faked() or not HAS_FILE_LOCKS:
        return None
    found = int.__new__(Descriptor, number)
    found.file, found.path, found.lock_files = _NO_FILE, "", {}
    with contextlib.suppress(OSError):
        status = fstat(number)
        if stat.S_ISSOCK(status.st_mode):
            found.file = status.st_dev, status.st_ino
    return found


def keep_for_ever(value: object) -> None:
    """Let the interpreter never free an object, not even at its end, where nothing is imported.

    The garbage collector does not look into code objects, so it never finds the cycle.
    """
    cycle: list[object] = []
    cycle.append(keep_for_ever.__code__.replace(co_consts=(cycle, value)))
