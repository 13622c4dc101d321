"""Tell whether a SQLite file is still the one that was opened, and whole; and what is beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sidelight.host import Descriptor

_HEADER: Final = 100  # bytes


class FileIdentity:
    """The device and inode of files when they were opened.

    A restore tool or a log rotation may put another file in place of a store. Commits into the old
    file succeed, but no reader finds them.

    Args:
        paths: the files.
        content: compare size and time of change as well, for a file that SQLite does not watch.
    """

    def __init__(self, *paths: Path, content: bool = False) -> None:
        self._content = content
        self._found = {path: self._look_at(path) for path in paths}

    @property
    def file(self) -> tuple[int, ...] | None:
        """The device and inode of the first file."""
        found = next(iter(self._found.values()))
        return found and found[:2]

    def is_current(self) -> bool:
        """Return whether the paths still name the same files."""
        return all(self._look_at(path) == found for path, found in self._found.items())

    def _look_at(self, path: Path) -> tuple[int, ...] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        content = (found.st_size, found.st_mtime_ns) if self._content else ()
        return found.st_dev, found.st_ino, *content


def beside(database: str | Path, suffix: str) -> Path:
    """Return a file beside a database, where SQLite has it: beside the target of a symbolic link.

    The link may be turned to another file at any time. So nothing keeps the answer.
    """
    return Path(f"{os.path.realpath(database)}{suffix}")


def is_cut(descriptors: Iterable[Descriptor], identity: FileIdentity) -> bool:
    """Return whether a file has no header any more.

    A file that is shorter than its header says may be sound: a checkpoint that was interrupted has
    written the header first, and the log has the pages.

    Args:
        descriptors: of this process for the file. Without one the answer is False.
        identity: of the file.
    """
    for each in descriptors:
        if each.file == identity.file and each.is_own():
            return os.fstat(each).st_size < _HEADER
    return False
