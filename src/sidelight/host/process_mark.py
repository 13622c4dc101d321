"""A mark that a forked child does not inherit, also where the fork runs no Python code.

A server in C (uWSGI by default, an embedded interpreter) forks without Python's hooks. The kernel
clears the marked page in each child (``MADV_WIPEONFORK``, Linux 4.14), so that one read tells a
child that everything open belongs to its parent. The read costs some 40 ns and no system call.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Final

_MADV_WIPEONFORK: Final = 18  # Linux; the mmap module has no name for it yet


def _marked_page() -> mmap.mmap | bytearray:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=private)
        page.madvise(_MADV_WIPEONFORK)
        return page
    return bytearray(1)  # where the kernel clears nothing, only Python's hooks tell of a fork


PROCESS_MARK: Final = _marked_page()
"""Its first byte is 0 in a forked child until `mark_process` is called there."""


def mark_process() -> None:
    """Note that this process knows what it has inherited."""
    PROCESS_MARK[0] = 1


mark_process()
