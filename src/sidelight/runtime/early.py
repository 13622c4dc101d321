"""The frames that are emitted before the process has a spool.

There are two cases. A signal handler, a `__del__` or the log of a failure emits in the thread that
opens the spool; it cannot wait for the spool. And a child of `multiprocessing` imports the main
module before the settings of its parent arrive.

The server of *forkserver* imports the main module as well, from Python 3.14 on, and settings never
arrive there. The processes that fork from it have copies of its frames, and one of all writes them.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from sidelight.emission import EMITTER
from sidelight.exceptions import SpoolError
from sidelight.record import error_message

if TYPE_CHECKING:
    from sidelight.spool import Spool


class EarlyFrames:
    """Keeps frames until there is a spool.

    Attributes:
        append: keep one frame.
    """

    def __init__(self) -> None:
        self._frames: Final[deque[bytes]] = deque()
        self._turn: Any = None  # a semaphore of all processes that have the frames; one gets it
        self.append: Final = self._frames.append

    def share(self) -> None:
        """Let the processes that fork from this one have the frames too, and one of all write them.

        Raises:
            OSError: the system gives no semaphore; then no child may write the frames.
        """
        if self._frames and self._turn is None:
            from multiprocessing import get_context  # noqa: PLC0415  # in a child: imported

            self._turn = get_context("fork").Semaphore(1)

    def in_child(self) -> EarlyFrames:
        """Return the frames of a child that has forked: none, unless they are shared with it."""
        return EarlyFrames() if self._turn is None else self

    def claim(self) -> bool:
        """Return whether this process has frames to write; forget those that another one writes."""
        if self._frames and self._turn is not None:
            if not self._turn.acquire(block=False):
                self._frames.clear()
            self._turn = None
        return bool(self._frames)

    def move_to(self, spool: Spool) -> None:
        """Append all frames to the open spool, and count those that find no room."""
        self.claim()
        while self._frames:
            try:
                spool.append(self._frames[0])
            except (SpoolError, OSError) as error:
                EMITTER.count("no room in the spool", error_message(error))
            self._frames.popleft()  # last: an interrupt must not take it

    def count_lost(self, problem: str) -> None:
        """Count all frames as lost, because the spool cannot be opened."""
        self.claim()
        while self._frames:
            self._frames.popleft()
            EMITTER.count("internal error", problem)
