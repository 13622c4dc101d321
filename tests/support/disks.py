"""Small disks that fill up and turn read-only: a tmpfs for each, mounted as root or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_PIECE = 64 * 1024


class Disk:
    """A mounted filesystem of a few megabytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filling = path / "filling"

    @property
    def free(self) -> int:
        """The number of free bytes."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, *, leave: int = 0) -> None:
        """Fill the disk except ``leave`` bytes."""
        with self._filling.open("ab") as file, contextlib.suppress(OSError):
            while (left := self.free - leave) > 0:
                try:
                    os.write(file.fileno(), bytes(min(left, _PIECE)))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break

    def make_room(self) -> None:
        """Free the bytes that `fill` took."""
        self._filling.unlink(missing_ok=True)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Prevent that files are created or opened for writing. Open files stay open.

        A read-only view of the directory lies over it: the disk itself cannot be remounted while
        a program writes to it, nor can a view through which it does. So that is made elsewhere.
        """
        view = self.path.with_name(f"{self.path.name}-read-only")
        view.mkdir(exist_ok=True)
        with _mounted("--bind", self.path, view):
            _run("mount", "-o", "remount,bind,ro", str(view))
            with _mounted("--bind", view, self.path):
                yield


@contextlib.contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Disk]:
    """Mount a new disk at ``path``, or skip the test without the right to mount."""
    path.mkdir()
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk needs the right to mount a tmpfs: {error}")
    try:
        yield Disk(path)
    finally:
        _run("umount", "-l", str(path))


@contextlib.contextmanager
def _mounted(how: str, what: Path, where: Path) -> Iterator[None]:
    _run("mount", how, str(what), str(where))
    try:
        yield
    finally:
        _run("umount", "-l", str(where))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
