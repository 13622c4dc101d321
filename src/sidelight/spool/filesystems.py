"""The filesystem that holds a directory.

Memory mappings and locks are unreliable on a network filesystem. A tmpfs lies in memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_NETWORK_FILESYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "afs"}
)
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def is_in_memory(directory: Path) -> bool:
    """Return whether a directory lies in memory: it outlives the process, not the machine."""
    return filesystem(directory) in _IN_MEMORY


def is_remote(directory: Path) -> bool:
    """Return whether a directory lies on a network filesystem, or would if it existed."""
    return filesystem(directory) in _NETWORK_FILESYSTEMS


_kinds: Final[dict[tuple[Path, int, int], str]] = {}  # a forked child finds its parent's


def filesystem(directory: Path) -> str:
    """Return the type of the filesystem that holds ``directory``; "" where it is unknown.

    The answer is kept for this directory only: a device's number is given again after an unmount.
    """
    try:
        status = directory.stat()
    except OSError:  # it does not exist yet
        return _mounted(directory)
    key = directory, status.st_dev, status.st_ino
    if not _kinds.get(key):
        _kinds[key] = _mounted(directory)
    return _kinds[key]


def _mounted(directory: Path) -> str:
    """Look a directory up among the mounts of this process."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    resolved = f"{os.path.realpath(directory)}/"  # `Path.resolve` fails at a loop of links
    best, kind = -1, ""
    for line in mounts.splitlines():
        _, mount, filesystem_type, *_ = line.split(" ")
        point = mount.replace("\\040", " ").rstrip("/") + "/"
        if len(point) >= best and resolved.startswith(point):
            best, kind = len(point), filesystem_type
    return kind
