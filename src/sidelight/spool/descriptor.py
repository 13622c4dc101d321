"""The number of an open file, which knows whether it still is that file.

A daemon closes every descriptor that it inherits, and its own files then get the numbers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self


class Descriptor(int):
    """The number of an open file, and the file that was opened as it.

    Attributes:
        file: device and inode.
        path: the name under which the file was opened.
        lock_files: the open lock files that stand for locked bytes of it, where there are any.
    """

    file: tuple[int, int]
    path: Path
    lock_files: dict[int, Descriptor]

    def __new__(cls, number: int, path: Path = Path()) -> Self:
        """Note which file has the number now."""
        self = super().__new__(cls, number)
        self.file, self.path, self.lock_files = identity(number), path, {}
        return self

    def is_own(self) -> bool:
        """Whether the number still is the file that was opened as it."""
        try:
            return self.file == identity(self)
        except OSError:
            return False

    def close(self) -> None:
        """Close the file and its lock files, unless other code has closed them."""
        for each in (*self.lock_files.values(), self):
            if each.is_own():
                os.close(each)
        self.lock_files.clear()


def identity(fd: int) -> tuple[int, int]:
    """Device and inode of an open file."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
