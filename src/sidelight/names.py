"""The names in a spool's directory: a file survives a power loss only together with its name."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sidelight.disk import Disk
from sidelight.threads import allocate_lock


class Names:
    """Makes what was created or renamed in a directory survive a power loss, by that name.

    Attributes:
        new: whether something was named since `sync` looked.
    """

    def __init__(self, directory: Path | None, disk: Disk) -> None:
        self.new = True
        self._directory = directory
        self._disk = disk
        self._rooted = False
        self._syncing = allocate_lock()

    def uproot(self) -> None:
        """The directory was made anew: those above it must be synced with it once more."""
        self.new, self._rooted = True, False

    def sync(self) -> None:
        """Make them survive; the first time also the names that lead to the directory.

        Raises:
            OSError: they would not.
        """
        with self._syncing:  # nobody is to think that it is done while another does it
            if self._directory is None or not self.new:
                return
            self.new = False  # first: what is named meanwhile is for the next time
            try:
                self._disk.sync_directory(self._directory)
            except OSError:
                self.new = True
                raise
            if not self._rooted:
                for parent in self._directory.parents:
                    with contextlib.suppress(OSError):  # not ours to read, hence not ours to make
                        self._disk.sync_directory(parent)
                self._rooted = True
