"""What the operating system has, looked at once, at import; and what is not kept without it.

Linux has everything. macOS cannot lock single bytes of an open file, and Windows has no `fcntl`.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path


def _has_fcntl() -> bool:
    try:
        import fcntl  # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


HAS_FILE_LOCKS: Final = _has_fcntl()
"""Whether a file's lock ends with its process, also while others have the file open. Without such
locks no relay can tell an orphaned segment from a live one, and the spool lies in memory."""
HAS_THREAD_CLOCKS: Final = hasattr(time, "pthread_getcpuclockid")
"""Whether a thread can read the CPU clock of another one."""
IS_LINUX: Final = hasattr(mmap, "MADV_DONTFORK")
"""Whether the kernel is Linux, with its numbers for ``madvise`` and with ``/proc``."""

IN_MEMORY: Final = (
    "this system has no flock, which tells a living writer from a dead one, so the spool lies in"
    " memory: a record that is not delivered dies with its process"
)
"""What is not kept without file locks."""


def host_name() -> str:
    """Return the name of this machine."""
    if hasattr(os, "uname"):
        return os.uname().nodename
    import platform  # noqa: PLC0415  # Windows only

    return platform.node()


def state_directory() -> Path:
    """Return the directory for what is kept where the user names no place.

    ``~/.local/state/sidelight`` or ``$XDG_STATE_HOME/sidelight`` on Linux, ``~/Library/Application
    Support/sidelight`` on macOS, ``%LOCALAPPDATA%`` and its ``sidelight`` on Windows.
    """
    import platformdirs  # noqa: PLC0415  # slow to import, seldom needed

    return platformdirs.user_state_path("sidelight", appauthor=False)


def not_kept() -> list[tuple[str, str]]:
    """List what sidelight does not keep on this system, each with its remedy; nothing on Linux."""
    found = []
    if not HAS_FILE_LOCKS:
        found.append((IN_MEMORY, "call sidelight.flush() before a process ends"))
    elif not IS_LINUX:
        found += [
            (
                "a fork in C that runs no hook of Python is not noticed",
                "let the server call the hooks (uWSGI: py-call-osafterfork)",
            ),
            ("a network filesystem is not recognized", "keep the spool on a local disk"),
            (
                "a process whose spool was moved or deleted under it is not found from outside",
                "restart processes with relay=external after moving a spool",
            ),
            (
                "a process that is stopped (SIGSTOP) is not told from one that works",
                "look at the state of a silent process with `ps`",
            ),
        ]
    if not HAS_THREAD_CLOCKS:
        problem = (
            "the CPU clock of another thread cannot be read, so beside threads that compute more"
            " awaited events are acknowledged as spooled"
        )
        found.append((problem, "expect `spooled` from a receipt in a busy process"))
    return found


def status_of(path: Path) -> os.stat_result | None:
    """Return the status of a file; None where there is none.

    `Path.exists` and `Path.is_dir` do not tell a missing file from one that this user may not look
    at, from Python 3.14 on.

    Raises:
        OSError: this user may not look at it.
    """
    try:
        return path.stat()
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP}:
            raise
    except ValueError:  # a NUL in the path
        pass
    return None


def is_directory(path: Path) -> bool:
    """Return whether there is a directory.

    Raises:
        OSError: this user may not look at it.
    """
    status = status_of(path)
    return status is not None and stat.S_ISDIR(status.st_mode)
